"""A real vLLM server as a process, and the requests sent to it."""

import asyncio
import os
import random
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tests.e2e.harness import free_port

MODEL_NAME = "tiny-llama"
SEQUENCES_MAX = 8
BLOCKS = 16  # one of them is the null block, which holds nothing
BLOCK_TOKENS = 128  # vLLM's on the CPU
CONTEXT_TOKENS = 1024
DRAIN_LIMIT_S = 60  # on a slow machine too, what is in flight ends before
_FIRST_WORD, _WORDS = 2, 1024  # of the vocabulary, the two special tokens left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request came back with; ``status`` 0: the connection failed."""

    status: int
    finish_reason: str = ""
    output_tokens: int = 0


class Server:
    """``vllm serve`` with few KV blocks; ``sent`` counts the requests that it took."""

    def __init__(self, programs: Path, model: Path, folder: Path) -> None:
        self.port = free_port()
        self.sent = 0
        self.log = folder / "vllm.log"
        self._programs = programs
        self._model = model
        self._random = random.Random(7)  # noqa: S311 - prompts, not secrets
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        environ = {
            **os.environ,
            "PATH": f"{self._programs}{os.pathsep}{os.environ['PATH']}",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "OMP_NUM_THREADS": "1",  # leaves a core to the daemon and the client
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        }
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._programs / "vllm"), "serve", str(self._model),
                "--served-model-name", MODEL_NAME,
                "--host", "127.0.0.1", "--port", str(self.port),
                "--enforce-eager",
                "--max-num-seqs", str(SEQUENCES_MAX),
                "--num-gpu-blocks-override", str(BLOCKS),
                "--max-model-len", str(CONTEXT_TOKENS),
                "--shutdown-timeout", str(DRAIN_LIMIT_S),
                stdout=log, stderr=log, env=environ, start_new_session=True,
            )  # fmt: skip

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.returncode is None

    async def ready(self) -> bool:
        """Whether it serves; fails with the end of its log if it has ended."""
        assert self.running, self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        return (await self._get("/health"))[0] == 200

    async def samples(self, name: str) -> dict[str, float]:
        """The samples of one metric of its page, by their labels."""
        _, text = await self._get("/metrics")
        found = re.finditer(rf"^{re.escape(name)}(\{{.*\}}) (\S+)$", text, re.MULTILINE)
        return {one[1]: float(one[2]) for one in found}

    def terminate(self) -> None:
        """SIGTERM to the process alone, as the kubelet sends it."""
        assert self._process is not None
        self._process.terminate()

    async def ended(self) -> int:
        """Its exit status, when it has ended."""
        assert self._process is not None
        return await self._process.wait()

    async def kill(self) -> None:
        """End it and its engine process, whatever state they are in."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        await self._process.wait()

    async def ask(self, *, requests: int, prompt_tokens: int, output_tokens: int) -> list[Answer]:
        """So many requests at once, of random prompts; their answers when all have ended."""
        timeout = aiohttp.ClientTimeout(total=300.0)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            return await asyncio.gather(
                *(
                    self._one(session, self._prompt(prompt_tokens), output_tokens)
                    for _ in range(requests)
                )
            )

    def _prompt(self, tokens: int) -> list[int]:
        return [self._random.randrange(_FIRST_WORD, _WORDS) for _ in range(tokens)]

    async def _one(
        self, session: aiohttp.ClientSession, prompt: list[int], output_tokens: int
    ) -> Answer:
        body = {
            "model": MODEL_NAME,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "ignore_eos": True,
        }
        url = f"http://127.0.0.1:{self.port}/v1/completions"
        try:
            async with session.post(url, json=body) as answer:
                if answer.status != 200:
                    return Answer(status=answer.status)
                self.sent += 1
                made = await answer.json()
        except aiohttp.ClientError:
            return Answer(status=0)
        return Answer(
            status=200,
            finish_reason=made["choices"][0]["finish_reason"],
            output_tokens=made["usage"]["completion_tokens"],
        )

    async def _get(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""
