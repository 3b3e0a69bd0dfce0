"""What differs between operating systems; the tests run on Linux, so the others are made up."""

import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.execution.machine import devices

ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system without /proc."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(devices, "PROCESS_STATUS", tmp_path / "none")
    monkeypatch.setattr(devices.platform, "processor", lambda: "arm")


@pytest.mark.usefixtures("mac")
def test_two_apple_chips_have_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(command: list[str], **_: object) -> SimpleNamespace:
        assert command == ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        return SimpleNamespace(stdout="Apple M4 Pro\n")

    monkeypatch.setattr(subprocess, "run", sysctl)
    assert devices._cpu_name() == "Apple M4 Pro"


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.CalledProcessError(1, "sysctl")])
def test_a_mac_that_does_not_say_its_chip_has_pythons_name(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def sysctl(*_: object, **__: object) -> SimpleNamespace:
        raise error

    monkeypatch.setattr(subprocess, "run", sysctl)
    assert devices._cpu_name() == "arm"


def test_an_arm_processor_on_linux_has_its_part_as_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(ARM)
    monkeypatch.setattr(devices, "CPU_INFO", info)
    monkeypatch.setattr(devices.platform, "machine", lambda: "aarch64")
    assert devices._cpu_name() == "aarch64 0x41 0xd0c"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("AMD EPYC", "AMD EPYC, family 25 model 17"),
        ("Intel(R) Xeon(R) CPU @ 2.20GHz", "Intel(R) Xeon(R) CPU @ 2.20GHz, family 25 model 17"),
        ("QEMU Virtual CPU version 2.5+", "QEMU Virtual CPU version 2.5+, family 25 model 17"),
        ("Common 64-bit KVM processor", "Common 64-bit KVM processor, family 25 model 17"),
        ("AMD EPYC-Milan-v2 Processor", "AMD EPYC-Milan-v2 Processor, family 25 model 17"),
        ("Caf\xe9", "Caf\N{REPLACEMENT CHARACTER}, family 25 model 17"),
        ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763 64-Core Processor"),
        ("Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz", "Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz"),
    ],
)
def test_a_name_that_several_models_have_gets_their_numbers(
    name: str, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    text = f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: {name}\n"
    info.write_text(text, encoding="latin-1")
    monkeypatch.setattr(devices, "CPU_INFO", info)
    assert devices._cpu_name() == expected
    info.write_text(text.replace("cpu family", "another key"), encoding="latin-1")
    assert devices._cpu_name() == expected.partition(", family")[0]


@pytest.mark.usefixtures("mac")
@pytest.mark.parametrize(("system", "max_rss"), [("darwin", 300 * 2**20), ("freebsd", 300 * 2**10)])
def test_a_peak_of_memory_has_its_unit(system: str, max_rss: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=max_rss))
    assert devices.peak_memory_mb() == 300.0


@pytest.mark.parametrize("module", ["harness", "harness.cli"])
def test_windows_is_refused_at_once_in_one_line(module: str) -> None:
    code = f"import sys; sys.platform = 'win32'; import {module}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "harness: the system is Windows; allowed: Linux or macOS, or Linux inside Windows (WSL)\n"
