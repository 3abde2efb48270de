from typing import Any

from gptshake.report.environment import environment_differences, same_machine


def info(
    *, torch: str = "2.13.0", cpu: str = "EPYC", threads: int = 2, gpus: tuple[str, ...] = (), device: str = "cpu", **more: Any
) -> Any:
    environment = {"python": "3.11.7", "packages": {"torch": torch, "numpy": "2.4.6"}, "cuda": None} | more
    hardware = {"cpu": cpu, "threads": 4, "gpus": [{"name": name} for name in gpus]}
    return {
        "environment": environment,
        "hardware": hardware,
        "resolved": {"trainer.accelerator": device, "trainer.precision": "32-true", "trainer.threads": threads},
    }


def test_every_difference_is_a_row_and_equal_things_are_none() -> None:
    assert environment_differences(info(), info()) == []
    other = info(torch="2.14.0", python="3.12.1", packages={"torch": "2.14.0", "rich": "14.0"}, driver="580.1")
    assert environment_differences(info(), other) == [
        ("python", "3.11.7", "3.12.1"),
        ("torch", "2.13.0", "2.14.0"),
        ("numpy", "2.4.6", "-"),
        ("driver", "-", "580.1"),
        ("rich", "-", "14.0"),
    ]


def test_the_same_machine_is_the_same_device_torch_and_threads() -> None:
    assert same_machine(info(), info(python="3.12.1", packages={"torch": "2.13.0", "numpy": "1"}))
    for other in (info(torch="2.14.0"), info(cpu="Xeon"), info(threads=1), info(device="gpu")):
        assert not same_machine(info(), other)


def test_only_the_device_that_trained_counts() -> None:
    assert same_machine(info(), info(gpus=("H100",)))
    assert same_machine(info(device="gpu", gpus=("H100",)), info(device="gpu", gpus=("H100",), cpu="Xeon"))
    assert not same_machine(info(device="gpu", gpus=("H100",)), info(device="gpu", gpus=("A100",)))


def test_a_record_that_does_not_say_is_not_the_same_machine() -> None:
    assert not same_machine({}, info()) and not same_machine({}, {})
    assert environment_differences({"environment": None}, {}) == []
