"""Energy counters, on imagined machines: this one has none that may be read."""

import time
from pathlib import Path
from typing import Any

import pytest

from gptshake import energy
from gptshake.energy import Meter, counters_of, driver


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A processor of two sockets, whose counters begin anew at 100 J; the cores' own counters are a part of the sockets'."""
    for name, kind in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "package-1"), ("intel-rapl:2", "psys")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(f"{kind}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("100000000\n")
        (tmp_path / name / "energy_uj").write_text("90000000\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    return tmp_path


def test_the_sockets_are_added_up_and_a_counter_may_begin_anew(rapl: Path) -> None:
    meter = Meter(counters_of("cpu"))
    assert meter.kwh() == 0.0
    (rapl / "intel-rapl:0/energy_uj").write_text("5000000\n")  # 90 -> 100 = 0 -> 5: 15 J
    (rapl / "intel-rapl:1/energy_uj").write_text("97000000\n")
    (rapl / "intel-rapl:0:0/energy_uj").write_text("99000000\n")
    assert meter.kwh() == pytest.approx((15 + 7) / 3.6e6)
    (rapl / "intel-rapl:0/energy_uj").write_text("6000000\n")
    assert meter.kwh() == pytest.approx((15 + 7 + 1) / 3.6e6)
    meter.close()


def test_a_counter_is_read_often_enough_not_to_miss_its_new_beginning(rapl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "SAMPLE_SECONDS", 0.001)
    values = [float(value % 100) for value in range(60 * 50, 0, -60)]

    def read() -> float:
        return values.pop() if len(values) > 1 else values[0]

    meter, limit = Meter([(read, 100.0)]), time.monotonic() + 10
    while len(values) > 1:  # the thread uses them up alone
        assert time.monotonic() < limit
        time.sleep(0.001)
    assert meter.kwh() == pytest.approx(60 * 49 / 3.6e6)
    meter.close()


def test_what_may_not_be_read_gives_no_number(rapl: Path) -> None:
    meter = Meter(counters_of("cpu"))
    (rapl / "intel-rapl:1/energy_uj").unlink()
    assert meter.kwh() is None
    assert Meter(counters_of("cpu")).kwh() is None  # nor is half of it a figure


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_without_a_counter_nothing_is_estimated(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    assert Meter(counters_of(device)).kwh() is None


class Library:
    """NVML with one GPU that has drawn so many millijoules."""

    def __init__(self, millijoules: int, code: int = 0) -> None:
        self.millijoules, self.code = millijoules, code

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlSystemGetDriverVersion(self, text: Any, length: int) -> int:
        text.value = b"570.86.15"
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:
        return 0 if uuid == b"GPU-1234" else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
        value._obj.value = self.millijoules
        return self.code


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library(5_000_000)
    monkeypatch.setattr(energy, "_library", lambda: library)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: type("Properties", (), {"uuid": "1234"}))
    return library


def test_a_gpu_counts_for_itself(gpu: Library) -> None:
    meter = Meter(counters_of("cuda"))
    gpu.millijoules += 3_600_000
    assert meter.kwh() == pytest.approx(1e-3)
    gpu.code = 999
    assert meter.kwh() is None


def test_a_gpu_without_a_counter_or_another_one_gives_no_number(gpu: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.code = 3
    assert Meter(counters_of("cuda")).kwh() is None
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: type("Properties", (), {"uuid": "5678"}))
    assert counters_of("cuda") == []


def test_the_drivers_version_is_read_from_the_system_or_asked(gpu: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "DRIVER", tmp_path / "version")
    assert driver() == "570.86.15"
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12\n"
    )
    assert driver() == "535.104.05"


def test_without_nvidia_there_is_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "DRIVER", tmp_path / "version")
    monkeypatch.setattr(energy, "LIBRARY", "libthere-is-no-such-thing.so.1")
    assert driver() is None
