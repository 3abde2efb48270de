"""What this machine is: processor, memory, GPUs; which device and precision suit it; how fast it can multiply. Imports no torch itself.

Questions about a GPU go to its driver's tool, for a process in which CUDA or Metal has started must not be forked; only measuring starts them.
"""

import os
import platform
import re
import resource
import subprocess
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError

CPU_INFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
MEM_INFO = Path("/proc/meminfo")
LOAD = Path("/proc/loadavg")
BF16_FLAGS = ({"amx_bf16"}, {"avx512_bf16", "authenticamd"})  # any whole set; avx512_bf16 of an Intel Xeon trained slower than fp32
CUDA_CONTEXT = 1 << 29  # bytes of a GPU that its driver takes for a process, beside what torch counts
SLACK = 1 << 28  # bytes that stacks and pools of threads reserve and do not use
BF16, FP16, FP32 = "bf16-mixed", "16-mixed", "32-true"

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # torch.cuda.is_available() shall ask the driver's library, not start CUDA

# Dense FLOP/s: of the Pascal, Volta and Turing generations, which have no bf16, (fp16, fp32 without tensor cores).
WITHOUT_BF16: dict[str, tuple[float, float]] = {
    "V100": (125e12, 15.7e12),
    "V100 PCIe": (112e12, 14e12),
    "V100S PCIe": (130e12, 16.4e12),
    "T4": (65e12, 8.1e12),
    "P100": (21.2e12, 10.6e12),
    "P100 PCIe": (18.7e12, 9.3e12),
}
# Of all: with fp32 accumulation, (bf16 and fp16 tensor cores, which are equally fast, fp32 without tensor cores). From NVIDIA's data sheets and architecture
# white papers (Ampere GA102, Ada, Blackwell, Hopper); where those print the figure with sparsity, half of it.
PEAK_FLOPS: dict[str, tuple[float, float]] = {
    "B200": (2250e12, 75e12),
    "H200": (989.4e12, 66.9e12),
    "H200 NVL": (835.5e12, 60e12),
    "H100": (989.4e12, 66.9e12),
    "H100 PCIe": (756e12, 51.2e12),
    "H100 NVL": (835.5e12, 60e12),
    "A100": (312e12, 19.5e12),
    "A100 PCIe": (312e12, 19.5e12),
    "A40": (149.7e12, 37.4e12),
    "A10": (125e12, 31.2e12),
    "L40S": (362.05e12, 91.6e12),
    "L40": (181.05e12, 90.5e12),
    "L4": (121e12, 30.3e12),
    "RTX 6000 Ada Generation": (364.2e12, 91.1e12),
    "RTX A6000": (154.8e12, 38.7e12),
    "RTX 5090": (209.5e12, 104.8e12),
    "RTX 4090": (165.2e12, 82.6e12),
    "RTX 4080": (97.5e12, 48.7e12),
    "RTX 3090 Ti": (80e12, 40e12),
    "RTX 3090": (71e12, 35.6e12),
    "RTX 3080": (59.5e12, 29.8e12),
    **WITHOUT_BF16,
}


@dataclass(frozen=True)
class Gpu:
    """A device that one may not have, for plans."""

    name: str  # as in PEAK_FLOPS
    memory: int  # bytes, as its driver reports them
    price_per_hour: float  # US dollars: recalled, not looked up: roughly what one was rented for in 2025, to be replaced by one's own


KNOWN_GPUS = {
    "a100": Gpu("A100", 81920 << 20, 1.6),
    "h100": Gpu("H100", 81559 << 20, 2.5),
    "h200": Gpu("H200", 143771 << 20, 3.3),
    "p100": Gpu("P100 PCIe", 16384 << 20, 0.2),
    "rtx3090": Gpu("RTX 3090", 24576 << 20, 0.2),
    "rtx4090": Gpu("RTX 4090", 24564 << 20, 0.4),
    "t4": Gpu("T4", 15360 << 20, 0.15),
    "v100": Gpu("V100", 16384 << 20, 0.25),
}


def describe() -> dict[str, Any]:
    """The machine, for the run's record: ``cpu``, ``cores`` (physical), ``threads`` (logical), ``ram_gb``, ``gpus``, ``platform``."""
    return {
        "cpu": cpu_name(),
        "cores": physical_cores(),
        "threads": logical_cores(),
        "ram_gb": round(memory_bytes() / 2**30, 1),
        "gpus": gpus(),
        "platform": platform.platform(),
    }


def gpus() -> list[dict[str, Any]]:
    """``name`` and, where known, ``memory_gb`` of each GPU, from the driver's own tool."""
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return [{"name": f"{cpu_name()} GPU"}]
    rows = _output("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits").splitlines()
    fields = [row.rsplit(",", 1) for row in rows if "," in row]
    return [{"name": name.strip(), "memory_gb": round(int(mib) / 1024, 1)} for name, mib in fields if mib.strip().isdigit()]


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; asks the driver, not CUDA, which must not start here."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    return [str(index) for index in range(sum(row.startswith("GPU ") for row in _output("nvidia-smi", "-L").splitlines()))]


def cpu_name() -> str:
    """The processor's name as its maker writes it, or its architecture."""
    if CPU_INFO.exists():
        name = re.search(r"^model name\s*:\s*(.+)$", CPU_INFO.read_text(), re.MULTILINE)
        return name[1].strip() if name else platform.machine()
    return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.processor() or platform.machine()


def logical_cores() -> int:
    """Hardware threads that this process may use: its affinity and its container's quota are respected."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _cgroup_value("cpu.max").partition(" ")
    return max(1, min(allowed, -(-int(quota) // int(period)))) if quota.isdigit() and period.isdigit() else allowed


def cores_are_busy() -> bool:
    """Whether threads of ours on every core would share one with other processes now; False where it is not known."""
    try:
        running = int(LOAD.read_text().split()[3].partition("/")[0]) - 1  # without this process
    except (OSError, ValueError, IndexError):
        return False
    return running + physical_cores() > (os.cpu_count() or 1)


def share_cores() -> None:
    """Let threads of OpenMP that wait for each other sleep instead of spin where other processes use the cores; to be called before torch is loaded.

    On two cores with one other busy process spinning costs half of the speed, with several nearly all of it; on idle cores sleeping costs a
    third (docs/benchmarks.md). The numbers are the same.
    """
    if cores_are_busy():
        time.sleep(0.01)
        if cores_are_busy():  # it is not only passing
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def physical_cores() -> int:
    """Cores behind those threads, and so torch's threads on the CPU; two threads of one core multiply no faster than one."""
    if not CPU_INFO.exists():
        return min(int(_output("sysctl", "-n", "hw.physicalcpu") or logical_cores()), logical_cores())
    allowed, cores = os.sched_getaffinity(0), set()
    for entry in CPU_INFO.read_text().split("\n\n"):
        fields = dict(re.findall(r"^(processor|physical id|core id)\s*:\s*(\d+)$", entry, re.MULTILINE))
        if len(fields) == 3 and int(fields["processor"]) in allowed:
            cores.add((fields["physical id"], fields["core id"]))
    return max(1, min(len(cores) or logical_cores(), logical_cores()))


def memory_bytes() -> int:
    """Main memory that this process may use, in bytes; a container's limit is respected."""
    total, limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _cgroup_value("memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def device_memory(device: str) -> int:
    """Memory in which ``device`` (``cpu``, ``cuda``, ``mps``) trains, in bytes; Apple's GPUs share the main memory."""
    if device != "cuda":
        return memory_bytes()
    import torch

    return _mib("memory.total") or int(torch.cuda.get_device_properties(0).total_memory)


def free_bytes(device: str) -> int:
    """Memory of ``device`` that nobody uses now, in bytes; for ``cpu`` and ``mps`` of the main memory, where the system says so, else all of it."""
    if device == "cuda":
        import torch

        return _mib("memory.free") or int(torch.cuda.mem_get_info()[0])
    found = re.search(r"^MemAvailable:\s*(\d+) kB$", MEM_INFO.read_text(), re.MULTILINE) if MEM_INFO.exists() else None
    free = 1024 * int(found[1]) if found else memory_bytes()
    limit, used, stat = (_cgroup_value(f"memory.{name}") for name in ("max", "current", "stat"))
    if limit.isdigit() and used.isdigit():
        cached = re.search(r"^inactive_file (\d+)$", stat, re.MULTILINE)  # page cache that is given up when memory is needed
        free = min(free, int(limit) - int(used) + (int(cached[1]) if cached else 0))
    return max(0, free)


def limit_memory(device: str, extra: int) -> None:
    """Let this process take ``extra`` bytes of ``device`` more than it has, and hardly more: beyond, it gets an error and not the machine.

    Of a GPU the limit is exact. Of the main memory it is generous, as what is reserved is not all used, and only Linux keeps it:
    whether a limit was passed is to be read from ``peak_bytes``.
    """
    if device == "cuda":
        import torch

        torch.cuda.set_per_process_memory_fraction(min(1.0, extra / device_memory(device)))
    elif platform.system() == "Linux":
        reserved = int(Path("/proc/self/statm").read_text().split()[5]) * os.sysconf("SC_PAGE_SIZE")
        wanted, hard = reserved + extra + extra // 4 + SLACK, resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def resident_bytes() -> int:
    """Main memory that this process holds now; where Linux does not say it, the most that it has held."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak_bytes("cpu")


def peak_bytes(device: str) -> int:
    """The most memory that this process has held so far: of the GPU for ``cuda`` (without the driver's) and ``mps``, else of the main memory."""
    if device in ("cuda", "mps"):
        import torch

        return int(torch.cuda.max_memory_reserved() if device == "cuda" else torch.mps.driver_allocated_memory())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def device_count(device: str) -> int:
    """Devices of a kind that training processes can be given one each; processors: one for each hardware thread."""
    if device == "cuda":
        import torch

        return int(torch.cuda.device_count())
    return logical_cores() if device == "cpu" else 1


def pick_device(accelerator: str, key: str = "trainer.accelerator") -> str:
    """``cuda``, ``mps`` or ``cpu``, for ``auto`` (the first that is there), ``gpu`` (CUDA or MPS) or one of them; refused if it is not there.

    ``key`` is what was written: an error names it.
    """
    choices = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps"), "cuda": ("cuda",), "mps": ("mps",), "cpu": ("cpu",)}
    if accelerator not in choices:  # from Python; of a config it is refused before
        raise ConfigError(f"{key}={accelerator} is unknown: write one of {', '.join(choices)}.")
    if accelerator == "cpu":
        return "cpu"
    import torch

    darwin = platform.system() == "Darwin"  # where torch would start Metal to see whether it can
    mps = torch.backends.mps.is_built() and platform.machine() == "arm64" if darwin else torch.backends.mps.is_available()
    there = {"cuda": torch.cuda.is_available(), "mps": mps, "cpu": True}
    for device in choices[accelerator]:
        if there[device]:
            return device
    group = key.partition(".")[0]
    raise ConfigError(f"{key}={accelerator} is set, but torch finds no such device: try {group}=auto or {group}=cpu.")


def pick_precision(device: str) -> str:
    """``bf16-mixed`` where the hardware multiplies bf16 well, ``16-mixed`` on other GPUs of NVIDIA's, else ``32-true``.

    bf16, that is: CUDA from compute capability 8 (Ampere) on, x86 processors with AMX, and AMD's from Zen 4 on (docs/benchmarks.md).
    """
    if device == "cuda":
        import torch

        known = re.fullmatch(r"(\d+)\.\d+", _first_gpu("compute_cap"))  # torch starts CUDA when it is asked
        return BF16 if (int(known[1]) if known else torch.cuda.get_device_capability()[0]) >= 8 else FP16
    if device == "cpu" and CPU_INFO.exists():
        first = CPU_INFO.read_text().partition("\n\n")[0]
        words = {word for line in re.findall(r"^(?:flags|vendor_id)\s*:(.+)$", first, re.MULTILINE) for word in line.lower().split()}
        return BF16 if any(flags <= words for flags in BF16_FLAGS) else FP32
    return FP32


def check_precision(device: str | None, precision: str | None) -> None:
    if precision == FP16 and device in ("cpu", "mps"):
        raise ConfigError(
            f"trainer.precision=16-mixed needs a GPU of NVIDIA's, and this run is on {'the CPU' if device == 'cpu' else 'MPS'}: "
            f"choose trainer.precision={'bf16-mixed or ' if device == 'cpu' else ''}32-true, or leave it out."
        )


def known_peak(gpu_name: str, precision: str) -> float | None:
    """Dense peak of a GPU in FLOP/s, by its driver's name ("NVIDIA A100-SXM4-80GB"), or None if the table lacks it.

    Maker, memory and socket are no part of the model. A variant (Laptop, SUPER, Ti) is another chip and is never taken for the plain one.
    """
    words = re.sub(r"\b(NVIDIA|GeForce|Tesla|SXM\d?|HBM\w*|\d+ ?GB)\b", " ", gpu_name.replace("-", " "))
    model = " ".join(words.split()).lower()
    peaks = next((peaks for name, peaks in PEAK_FLOPS.items() if name.lower() == model), None)
    return peaks[1 if precision == FP32 else 0] if peaks else None


def peak_flops(device: str, precision: str) -> float:
    """FLOP/s against which utilisation is measured: the table's dense peak for known GPUs, else a measured matrix product."""
    if device == "cuda":
        import torch

        if peak := known_peak(torch.cuda.get_device_name(), precision):
            return peak
    return measured_gemm_flops(device, precision)


@lru_cache
def measured_gemm_flops(device: str, precision: str) -> float:
    """FLOP/s of a square matrix product on ``device``, the best of repeated ones for 0.05 s; measured once per process."""
    import torch

    size = 512 if device == "cpu" else 4096  # as fast as a larger one there, and done many times in a moment
    dtype = {BF16: torch.bfloat16, FP16: torch.float16}.get(precision, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype, generator=torch.Generator(device)) for _ in range(2))
    left @ right  # the first product also chooses a kernel
    wait(device)
    best, until = float("inf"), time.perf_counter() + 0.05
    while best == float("inf") or time.perf_counter() < until:
        start = time.perf_counter()
        left @ right
        wait(device)
        best = min(best, time.perf_counter() - start)
    return float(2 * size**3 / best)


def process_age() -> float | None:
    """Seconds since this process began, its interpreter's start included; None where the system does not tell (Linux does)."""
    try:
        began = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def wait(device: str) -> None:
    if device != "cpu":
        import torch

        {"cuda": torch.cuda, "mps": torch.mps}[device].synchronize()


def _mib(field: str) -> int:
    """Bytes of a size that the driver's tool gives in MiB; 0 if it does not."""
    said = _first_gpu(field)
    return int(said) << 20 if said.isdigit() else 0


def _first_gpu(field: str) -> str:
    """What the driver's tool says of the first GPU that this process may use; nothing of a part of one (MIG), which it does not know."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    which = ("-i", wanted) if wanted else ()
    rows = _output("nvidia-smi", f"--query-gpu={field},mig.mode.current", "--format=csv,noheader,nounits", *which).splitlines()
    value, _, parted = (rows[0] if rows else "").partition(",")
    return "" if parted.strip() == "Enabled" else value.strip()


def _cgroup_value(name: str) -> str:
    """What the container says; nothing where there is none."""
    try:
        return (CGROUP / name).read_text().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """What a command prints, or nothing if it is missing, fails or does not answer within ten seconds."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
