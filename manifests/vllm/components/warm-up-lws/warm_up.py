"""Startup probe: exit 0 once vLLM has answered a request, 1 before.

Runs inside the vLLM container every few seconds until it succeeds.  While the model loads the port
is closed, which costs one refused connection.  Standard library only.
"""

import json
import os
import sys
import urllib.error
import urllib.request

BASE_URL = os.environ.get("WARM_UP_URL", "http://127.0.0.1:8000")
PROMPT = "Count from one to ten in words. " * 32  # a prefill of a few hundred tokens
OUTPUT_TOKENS = 16
HEALTH_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 50.0  # below timeoutSeconds of the probe


def main() -> int:
    """The probe's exit status; the reason goes to standard error, where kubelet events show it."""
    try:
        _call("/health", None, HEALTH_TIMEOUT_S)
        model = os.environ.get("SERVED_MODEL_NAME") or _first_model()
        answer = _call("/v1/completions", _request(model), REQUEST_TIMEOUT_S)
    except (OSError, ValueError, LookupError) as error:
        print(f"not warm: {error}", file=sys.stderr)
        return 1
    if not json.loads(answer)["choices"]:
        print("not warm: the answer has no choices", file=sys.stderr)
        return 1
    return 0


def _request(model: str) -> bytes:
    body = {"model": model, "prompt": PROMPT, "max_tokens": OUTPUT_TOKENS, "temperature": 0}
    return json.dumps(body).encode()


def _first_model() -> str:
    return str(json.loads(_call("/v1/models", None, HEALTH_TIMEOUT_S))["data"][0]["id"])


def _call(path: str, body: bytes | None, timeout_s: float) -> bytes:
    """The body of an answer with status 200 to 299; anything else is an OSError."""
    headers = {"Content-Type": "application/json"}
    key = os.environ.get("VLLM_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(BASE_URL + path, data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout_s) as answer:
        return bytes(answer.read())


if __name__ == "__main__":
    sys.exit(main())
