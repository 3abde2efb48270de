"""What the machine says about itself, on this machine and on imagined ones."""

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gptshake import hardware
from gptshake.errors import ConfigError

ENTRY = "processor\t: {processor}\nmodel name\t: Imagined CPU\nphysical id\t: {socket}\ncore id\t: {core}\nflags\t\t: fpu sse2 {flags}\n"


@pytest.fixture
def imagined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of two sockets with two cores of two threads each, and no container."""
    entries = [ENTRY.format(processor=i, socket=i // 4, core=i % 2, flags="avx512f") for i in range(8)]
    (tmp_path / "cpuinfo").write_text("\n".join(entries))
    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def test_description_is_whole_and_can_be_written_down() -> None:
    machine = json.loads(json.dumps(hardware.describe()))
    assert set(machine) == {"cpu", "cores", "threads", "ram_gb", "gpus", "platform"}
    assert machine["cpu"]
    assert 1 <= machine["cores"] <= machine["threads"]
    assert machine["ram_gb"] > 0


def test_cores_are_counted_once_and_affinity_is_respected(imagined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.cpu_name() == "Imagined CPU"
    assert (hardware.logical_cores(), hardware.physical_cores()) == (8, 4)
    monkeypatch.setattr(hardware.os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)  # two threads of one core, and another core
    assert (hardware.logical_cores(), hardware.physical_cores()) == (3, 2)


@pytest.mark.parametrize(("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 4), ("9900000 100000", 4)])
def test_a_containers_quota_is_respected(imagined: Path, quota: str, cores: int) -> None:
    (imagined / "cpu.max").write_text(quota + "\n")
    assert hardware.physical_cores() == cores


def test_a_containers_memory_is_respected(imagined: Path) -> None:
    whole = hardware.memory_bytes()
    (imagined / "memory.max").write_text("1000000\n")
    assert hardware.memory_bytes() == hardware.device_memory("cpu") == 1_000_000
    (imagined / "memory.max").write_text("max\n")
    assert hardware.memory_bytes() == whole


@pytest.mark.parametrize(
    ("maker", "flags", "precision"),
    [
        ("GenuineIntel", "avx512f", "32-true"),
        ("GenuineIntel", "avx512_bf16", "32-true"),
        ("GenuineIntel", "avx512_bf16 amx_bf16", "bf16-mixed"),
        ("AuthenticAMD", "avx512f", "32-true"),
        ("AuthenticAMD", "avx512f avx512_bf16", "bf16-mixed"),
    ],
)
def test_bf16_where_the_processor_trains_faster_with_it(imagined: Path, maker: str, flags: str, precision: str) -> None:
    entry = ENTRY.format(processor=0, socket=0, core=0, flags=flags)
    (imagined / "cpuinfo").write_text(entry.replace("processor", f"vendor_id\t: {maker}\nprocessor", 1))
    assert hardware.pick_precision("cpu") == precision
    assert hardware.pick_precision("mps") == "32-true"


@pytest.mark.parametrize(
    ("capability", "precision"), [((6, 0), "16-mixed"), ((7, 5), "16-mixed"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_bf16_from_ampere_on_and_fp16_before(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert hardware.pick_precision("cuda") == precision


@pytest.mark.parametrize(
    ("there", "accelerator", "device"),
    [
        ({"cuda", "mps"}, "auto", "cuda"),
        ({"mps"}, "auto", "mps"),
        (set(), "auto", "cpu"),
        ({"mps"}, "gpu", "mps"),
        ({"cuda"}, "gpu", "cuda"),
        ({"cuda"}, "cpu", "cpu"),
    ],
)
def test_the_best_device_that_is_there(monkeypatch: pytest.MonkeyPatch, there: set[str], accelerator: str, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in there)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in there)
    assert hardware.pick_device(accelerator) == device


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="trainer=cpu"):
        hardware.pick_device("gpu")
    with pytest.raises(ConfigError, match="auto, gpu, cuda, mps, cpu"):
        hardware.pick_device("tpu")
    with pytest.raises(ConfigError, match=r"^device=cuda .* try device=auto or device=cpu\.$"):
        hardware.pick_device("cuda", "device")


@pytest.mark.parametrize(
    ("name", "bf16"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA GeForce RTX 3090", 71e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA A10G", None),
        ("Imagined GPU", None),
    ],
)
def test_known_peaks_and_no_guess_for_variants(name: str, bf16: float | None) -> None:
    assert hardware.known_peak(name, "bf16-mixed") == bf16


def test_every_peak_in_the_table_is_found_by_the_name_of_its_gpu() -> None:
    for name, (bf16, fp32) in hardware.PEAK_FLOPS.items():
        assert (hardware.known_peak(f"NVIDIA {name}", "bf16-mixed"), hardware.known_peak(f"NVIDIA {name}", "32-true")) == (bf16, fp32)
        assert bf16 > fp32


def test_an_unknown_device_is_measured_once_without_touching_the_global_numbers() -> None:
    hardware.measured_gemm_flops.cache_clear()
    state = torch.get_rng_state()
    measured = hardware.peak_flops("cpu", "32-true")
    assert 1e8 < measured < 1e15
    assert hardware.peak_flops("cpu", "32-true") == measured
    assert torch.equal(torch.get_rng_state(), state)


def test_gpus_are_read_from_the_drivers_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "system", lambda: "Linux")
    monkeypatch.setattr(hardware, "_output", lambda *command: "NVIDIA H200, 143771\nOdd, Name, 24576\nNVIDIA GH, [N/A]")
    assert hardware.describe()["gpus"] == [{"name": "NVIDIA H200", "memory_gb": 140.4}, {"name": "Odd, Name", "memory_gb": 24.0}]


@pytest.mark.parametrize(
    ("answer", "precision", "total"),
    [("7.5, [N/A]", "16-mixed", 75), ("8.0, Disabled", "bf16-mixed", 80), ("9.0, Enabled", "bf16-mixed", 1000), ("", "bf16-mixed", 1000)],
)
def test_a_gpu_is_asked_for_by_its_drivers_tool_so_that_cuda_does_not_start(
    monkeypatch: pytest.MonkeyPatch, answer: str, precision: str, total: int
) -> None:
    asked: list[tuple[str, ...]] = []

    def output(*command: str) -> str:
        asked.append(command)
        return answer.replace(".", "") if "memory" in command[1] else answer

    monkeypatch.setattr(hardware, "_output", output)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1234,3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1000 << 20))
    assert hardware.pick_precision("cuda") == precision
    assert hardware.device_memory("cuda") == total << 20
    assert all(command[-2:] == ("-i", "GPU-1234") for command in asked)


@pytest.mark.parametrize(
    ("name", "fp16", "fp32"),
    [
        ("Tesla T4", 65e12, 8.1e12),
        ("Tesla V100-SXM2-16GB", 125e12, 15.7e12),
        ("Tesla V100-PCIE-32GB", 112e12, 14e12),
        ("Tesla P100-PCIE-16GB", 18.7e12, 9.3e12),
        ("NVIDIA A100-SXM4-40GB", 312e12, 19.5e12),
    ],
)
def test_the_peak_of_16_mixed_is_that_of_fp16(name: str, fp16: float, fp32: float) -> None:
    assert (hardware.known_peak(name, "16-mixed"), hardware.known_peak(name, "32-true")) == (fp16, fp32)


def test_a_tool_that_fails_or_hangs_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware._output("no-such-tool") == ""
    assert hardware._output("false") == ""

    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", 5)

    monkeypatch.setattr(subprocess, "run", hang)
    assert hardware._output("true") == ""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells when a process began")
def test_a_process_knows_its_age() -> None:
    age = hardware.process_age()
    assert age is not None and 0 < age < 24 * 3600
    assert (hardware.process_age() or 0) >= age


def test_free_memory_is_the_machines_or_what_the_container_leaves(imagined: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (imagined / "meminfo").write_text("MemTotal:  8000 kB\nMemFree:  1000 kB\nMemAvailable:    6000 kB\n")
    monkeypatch.setattr(hardware, "MEM_INFO", imagined / "meminfo")
    assert hardware.free_bytes("cpu") == 6000 * 1024
    for name, value in (("max", "5000000"), ("current", "3000000"), ("stat", "anon 7\ninactive_file 500000\nactive_file 1")):
        (imagined / f"memory.{name}").write_text(value)
    assert hardware.free_bytes("cpu") == 2_500_000
    (imagined / "memory.current").write_text("9000000")
    assert hardware.free_bytes("cpu") == 0
    (imagined / "memory.max").write_text("max")
    assert hardware.free_bytes("cpu") == 6000 * 1024


def test_a_gpus_memory_is_limited_to_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(hardware, "device_memory", lambda device: 1000)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    hardware.limit_memory("cuda", 250)
    hardware.limit_memory("cuda", 5000)
    assert shares == [0.25, 1.0]


@pytest.mark.parametrize(
    ("running", "cores", "busy"), [("1/300", 2, False), ("2/300", 2, True), ("2/300", 4, False), ("9/300", 4, True), ("x", 2, False)]
)
def test_threads_that_wait_sleep_where_others_use_the_cores(
    running: str, cores: int, busy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loadavg").write_text(f"0.10 0.20 0.30 {running} 4711\n")
    monkeypatch.setattr(hardware, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(hardware, "physical_cores", lambda: 2)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    for before, after in ((None, "PASSIVE" if busy else None), ("ACTIVE", "ACTIVE")):
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        if before:
            monkeypatch.setenv("OMP_WAIT_POLICY", before)
        hardware.share_cores()
        assert os.environ.get("OMP_WAIT_POLICY") == after
