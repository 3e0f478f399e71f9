"""What this machine has to compute with, and a process' share of it."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from workers.spec.pool import Layout

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt(3): from which size memory is mapped, and when it is given back."""

_COMPILED = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
    "JAX_COMPILATION_CACHE_MAX_SIZE": str(1 << 30),
}
"""JAX keeps what it compiled, a gigabyte of it, for other workers and later campaigns: a program's
second run, such as a final one, starts in 2.4 s instead of 6 to 12 on an H100. XLA's cache of
single kernels stays off: with it, programs ended in illegal instructions there (JAX 0.11.2)."""

QUICK_COMPILE = "--xla_gpu_enable_triton_gemm=false"
"""On an H100 the time to the first step falls from 38 to 9 s, and a step takes 2 % longer."""


def cpu_count() -> int:
    """Processors that this process may use: its affinity, under the container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(count, _quota(Path("/sys/fs/cgroup")) or count))


def _quota(cgroup: Path) -> int | None:
    """Whole processors in the cgroup's CPU quota (version 2, then 1); None where there is none."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if limit in ("max", "-1") else max(1, int(limit) // int(period))


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use, without loading a framework or a driver library."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = [device.strip() for device in visible.split(",")]
        return len(listed) if all(listed) and "-1" not in listed else 0
    if shutil.which("nvidia-smi") is None:
        return 0
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in answer.stdout.splitlines())


def accelerators() -> set[str]:
    """Kinds of devices beside the CPU that Keras' backend computes on here: gpu, tpu."""
    import keras

    return {device.split(":")[0] for device in keras.distribution.list_devices()} - {"cpu"}


def use_backend(name: str) -> None:
    """Makes Keras run on this backend. Keras chooses when it is imported, once a process, so a
    RuntimeError says where another one has been chosen before."""
    keras = sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = name
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    elif keras.backend.backend() != name:
        raise RuntimeError(
            f"this process runs Keras on {keras.backend.backend()}; start a new one for {name}"
        )


def configure(backend: str, layout: Layout, memory_limit_mb: int | None) -> None:
    """Imports the backend and binds it to the worker's share: threads, and one GPU or none.

    To be called before the first op, after which none of it can be changed.
    """
    use_backend(backend)
    os.environ["OMP_NUM_THREADS"] = str(layout.cpus)
    if not layout.gpus:
        _keep_memory()
    if layout.gpus and "triton_gemm" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILE}".strip()
    if backend == "jax":
        _configure_jax(layout, memory_limit_mb)
    else:
        _configure_tensorflow(layout, memory_limit_mb)


def _keep_memory() -> None:
    """Has glibc keep freed memory: else every large array is mapped and zeroed by the kernel anew,
    a third of a step's time with arrays of 64 MB."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)


def _configure_jax(layout: Layout, memory_limit_mb: int | None) -> None:
    """JAX takes its memory limit as a share of the GPU, and its threads from the processors that
    the process may use."""
    from workers.data.tokens import cache_folder

    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    for name, value in _COMPILED.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
    if memory_limit_mb is not None:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(memory_limit_mb / _gpu_memory_mb())
    if not layout.gpus and gpu_count():
        os.environ["JAX_PLATFORMS"] = "cpu"


def _gpu_memory_mb() -> int:
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    return int(answer.stdout.split()[0])


def _configure_tensorflow(layout: Layout, memory_limit_mb: int | None) -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(layout.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(layout.cpus)
    # Graph rewriting takes a third of a second a candidate and gains no step time here.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    if not layout.gpus:
        tf.config.set_visible_devices([], "GPU")
        return
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise RuntimeError(
            "TensorFlow sees no GPU in a worker that was given one: install tensorflow[and-cuda], "
            "or set workers.gpus_per_worker to 0"
        )
    for gpu in gpus:
        if memory_limit_mb is None:
            tf.config.experimental.set_memory_growth(gpu, True)
        else:
            limit = tf.config.LogicalDeviceConfiguration(memory_limit=memory_limit_mb)
            tf.config.set_logical_device_configuration(gpu, [limit])
