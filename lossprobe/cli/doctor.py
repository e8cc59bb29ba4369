"""The command `lossprobe doctor`."""

from __future__ import annotations

import platform

import click

from lossprobe import __version__
from lossprobe.errors import UsageError

# Lowest versions that are safe or correct: torch for loading pickles, safetensors for reading without memory maps,
# transformers for refusing code in a configuration and for the attention of Gemma 2, pyarrow for its Parquet reader.
FLOORS = {"torch": "2.10", "safetensors": "0.8", "transformers": "5.21", "pyarrow": "23.0.1"}
OTHERS = ("tokenizers", "numba", "numpy", "pandas", "duckdb", "matplotlib", "scipy", "click", "rich")


@click.command(short_help="Show versions and devices; refuse old versions.")
@click.pass_obj
def doctor(unused: list[str] | None) -> None:
    """Show the versions of libraries, whether each is at least the required minimum, and the devices of this machine.

    \b
    Example:
      lossprobe doctor
    """
    import torch

    from lossprobe.processors import described_processors
    from lossprobe.report.talk import say

    click.echo(f"lossprobe     {__version__}")
    click.echo(f"python        {platform.python_version()} on {platform.system()} {platform.machine()}")
    low = show_versions()
    click.echo(f"cpu           {torch.get_num_threads()} threads; {described_processors()}")
    for index in range(torch.cuda.device_count()):
        show_gpu(index)
    click.echo(f"mps           {'available' if torch.backends.mps.is_available() else 'not available'}")
    if unused:
        say(f"environment variables that lossprobe ignores: {', '.join(unused)}")
    if low:
        raise UsageError("doctor.versions", f"too old: {', '.join(low)}")


def show_gpu(index: int) -> None:
    """Print the name of a GPU, and what measures its logits; the first time kernels are compiled for it."""
    import torch

    from lossprobe.scoring.accelerated import why_not

    reason = why_not(torch.device("cuda", index), torch.bfloat16)
    statistics = f"statistics by torch: {reason}" if reason else "statistics by fused kernels"
    click.echo(f"cuda:{index}        {torch.cuda.get_device_name(index)}, {statistics}")


def show_versions() -> list[str]:
    """Print the version of each library; return those that are older than their floor."""
    from importlib import metadata

    from packaging.version import Version

    low = []
    for name, floor in FLOORS.items():
        version = metadata.version(name)
        met = Version(version).release >= Version(floor).release
        low += [] if met else [f"{name} {version} (needs {floor})"]
        click.echo(f"{name:<13} {version:<14} floor {floor}: {'met' if met else 'NOT MET'}")
    for name in OTHERS:
        click.echo(f"{name:<13} {metadata.version(name)}")
    return low
