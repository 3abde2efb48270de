"""Energy that a device has drawn, from its own counter: NVIDIA's through the driver's library, a processor's through Linux's RAPL.

Without a counter that may be read (RAPL is root's on most systems) there is no number. What others do on the device is in it.
"""

import contextlib
import ctypes
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

RAPL = Path("/sys/class/powercap")
DRIVER = Path("/proc/driver/nvidia/version")
LIBRARY = "libnvidia-ml.so.1"
SAMPLE_SECONDS = 60.0  # the smallest RAPL counter begins anew after 65 kJ
JOULES_PER_KWH = 3.6e6

Counter = tuple[Callable[[], float], float]  # reads joules; the value at which it begins anew, or 0


class Meter:
    """Adds up counters (of ``counters_of``; without any it knows nothing) from now on, in a thread that sleeps nearly always."""

    def __init__(self, counters: Sequence[Counter]) -> None:
        self._counters, self._joules, self._works = list(counters), 0.0, bool(counters)
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._last: list[float] = []
        self._sample()
        if self._works:
            threading.Thread(target=self._watch, daemon=True).start()

    def kwh(self) -> float | None:
        """Kilowatt-hours so far; None without a counter, or if one failed."""
        self._sample()
        return self._joules / JOULES_PER_KWH if self._works else None

    def close(self) -> float | None:
        """End the thread; gives the last figure."""
        self._ended.set()
        return self.kwh()

    def _watch(self) -> None:
        while self._works and not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        with self._lock:
            try:
                values = [read() for read, _ in self._counters]
            except (OSError, ValueError):
                self._works = False  # half a sum would be a guess
                return
            for value, last, (_, whole) in zip(values, self._last or values, self._counters, strict=True):
                self._joules += value - last + (whole if value < last else 0.0)
            self._last = values


def counters_of(device: str, count: int = 1) -> list[Counter]:
    """The counters of ``cuda`` (the ``count`` GPUs that torch uses first) or ``cpu`` (all its sockets); none unless all of them have one."""
    counters: list[Counter] = []
    if device == "cuda":
        import torch

        uuids = [getattr(torch.cuda.get_device_properties(number), "uuid", None) for number in range(count)]
        counters = [counter for uuid in uuids if uuid for counter in _nvidia(f"GPU-{uuid}")]
        return counters if len(counters) == count else []
    for folder in sorted(RAPL.glob("intel-rapl:*")) if device == "cpu" else ():  # AMD's processors stand there, too
        with contextlib.suppress(OSError, ValueError):
            if (folder / "name").read_text().startswith("package"):
                whole = float((folder / "max_energy_range_uj").read_text()) / 1e6
                counters.append((partial(_joules, folder / "energy_uj"), whole))
    return counters


def driver() -> str | None:
    """Version of NVIDIA's driver, or None without one."""
    with contextlib.suppress(OSError):
        found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", DRIVER.read_text())
        return found[1] if found else None
    library, text = _library(), ctypes.create_string_buffer(96)
    return text.value.decode() if library and library.nvmlSystemGetDriverVersion(text, len(text)) == 0 else None


def _nvidia(uuid: str) -> list[Counter]:
    library, handle = _library(), ctypes.c_void_p()
    if library is None or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != 0:
        return []

    def read() -> float:
        millijoules = ctypes.c_ulonglong()
        code = library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules))
        if code != 0:  # not before the Volta generation, nor of a part of a GPU
            raise OSError(code, "NVML has no energy counter for this device")
        return millijoules.value / 1e3

    return [(read, 0.0)]


def _joules(file: Path) -> float:
    return float(file.read_text()) / 1e6


def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
