"""Startup probe: exit 0 once vLLM has answered a request, 1 before.

Runs inside the vLLM container every few seconds until it succeeds.  While the model loads the port
is closed, which costs one refused connection.  Standard library only.
"""

import http.client
import json
import os
import sys

HOST = "127.0.0.1"
PORT = int(os.environ.get("WARM_UP_PORT", "8000"))
PROMPT = "Count from one to ten in words. " * 32  # a prefill of a few hundred tokens
OUTPUT_TOKENS = 16
HEALTH_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 50.0  # below timeoutSeconds of the probe


def main() -> int:
    """The probe's exit status; the reason goes to standard error, where kubelet events show it."""
    try:
        _call("GET", "/health", timeout_s=HEALTH_TIMEOUT_S)
        model = os.environ.get("SERVED_MODEL_NAME") or _first_model()
        answer = json.loads(_call("POST", "/v1/completions", body=_request(model)))
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        sys.stderr.write(f"not warm: {error}\n")
        return 1
    if not isinstance(answer, dict) or not answer.get("choices"):
        sys.stderr.write("not warm: the answer has no choices\n")
        return 1
    return 0


def _request(model: str) -> bytes:
    body = {"model": model, "prompt": PROMPT, "max_tokens": OUTPUT_TOKENS, "temperature": 0}
    return json.dumps(body).encode()


def _first_model() -> str:
    return str(json.loads(_call("GET", "/v1/models"))["data"][0]["id"])


def _call(
    method: str, path: str, *, body: bytes | None = None, timeout_s: float = REQUEST_TIMEOUT_S
) -> bytes:
    """The body of an answer with status 200.  Raises ValueError for any other status."""
    headers = {"Content-Type": "application/json"}
    key = os.environ.get("VLLM_API_KEY")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    connection = http.client.HTTPConnection(HOST, PORT, timeout=timeout_s)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise ValueError(f"{path} answers {answer.status}")
    return text


if __name__ == "__main__":
    sys.exit(main())
