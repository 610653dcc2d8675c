"""Make the stubs beside this file from protos/: ``python -m scaler._generated.generate``."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "scaler/_generated"


def generate(out: Path) -> None:
    """Write the stubs under ``out``, at their place in the package.

    Raises:
        subprocess.CalledProcessError: when protoc refuses the file.
    """
    # "-I virtual=real" puts the file inside the package, so that the generated imports are absolute
    # without being edited afterwards.
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PACKAGE}={ROOT / 'protos'}"]
    command += [f"--{kind}_out={out}" for kind in ("python", "pyi", "grpc_python")]
    command.append(f"{PACKAGE}/externalscaler.proto")
    subprocess.run(command, check=True)  # noqa: S603 (a command of constants)


if __name__ == "__main__":
    generate(ROOT)
