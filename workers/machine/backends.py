"""The frameworks that Keras computes on: one row each, which says all in which they differ.

A new backend is a row here (or in a plug-in, by `BACKENDS.register`) and an engine. Reading a row
imports no framework, so a config can be checked without one.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import pkgutil
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from primitives.registry import Registry
from workers.machine.caches import cache_folder
from workers.machine.devices import Layout, gpu_count, gpu_memory_mb, processor_name

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


@dataclass(frozen=True, slots=True)
class Backend:
    """One framework, as a process uses it.

    Attributes:
        name: what `training.backend` calls it.
        keras: what Keras calls it (`KERAS_BACKEND`).
        configure: called once in a fresh process, before its first operation, with the process'
            share of the machine and its limit of GPU memory in megabytes (None: as much as is
            needed). It sets threads, devices, memory and caches, and may import the framework.
        engine: `module:Class` of an `engines.engine.Engine`, imported when a candidate is trained.
        learner: `module:Class` of an `engines.learner.Learner`, with which models are pruned; or
            nothing.
        fuses: whether it fuses elementwise operations on every kind of device. (On accelerators
            every backend does.)
        dynamic: whether, without XLA, sizes of its arrays may follow from values.
        flash: the kinds of devices, such as gpu, on which it has a kernel for attention of
            bfloat16 operands that never writes the scores to memory.
        bfloat16: the kinds of devices on which products in bfloat16 pay however short the budget.
        ahead: whether its engine is an `engines.engine.Ahead`, too: what one process has compiled,
            another can train.
        packages: distributions whose versions decide what it computes.
        extra: the extra of this distribution that installs it, or nothing.
    """

    name: str
    keras: str
    configure: Callable[[Layout, int | None], None]
    engine: str
    learner: str = ""
    fuses: bool = False
    dynamic: bool = False
    flash: frozenset[str] = frozenset()
    bfloat16: frozenset[str] = frozenset()
    ahead: bool = False
    packages: tuple[str, ...] = ()
    extra: str = ""

    def load_engine(self) -> Any:
        """The engine's class: (graph, values, task, seed) -> Engine."""
        return pkgutil.resolve_name(self.engine)

    def load_learner(self) -> Any:
        """The learner's class: (function, groups, states, fixed) -> Learner."""
        return pkgutil.resolve_name(self.learner)

    def versions(self) -> dict[str, str]:
        """The version of each of its packages that is installed."""
        found: dict[str, str] = {}
        for package in self.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found


def configure(backend: str, layout: Layout, memory_limit_mb: int | None) -> None:
    """Binds this process to its share of the machine: threads, and one GPU or none.

    To be called before the first operation, after which none of it can be changed.
    """
    use_backend(backend)
    os.environ["OMP_NUM_THREADS"] = str(layout.cpus)
    if not layout.gpus:
        _keep_memory()
    if layout.gpus and "triton_gemm" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_COMPILE}".strip()
    BACKENDS[backend].configure(layout, memory_limit_mb)


def use_backend(name: str) -> Backend:
    """Makes Keras run on this backend. Keras chooses when it is imported, once a process, so a
    RuntimeError says where another one has been chosen before."""
    backend, keras = BACKENDS[name], sys.modules.get("keras")
    if keras is None:
        os.environ["KERAS_BACKEND"] = backend.keras
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    elif keras.backend.backend() != backend.keras:
        raise RuntimeError(
            f"this process runs Keras on {keras.backend.backend()}; start a new one for {name}"
        )
    return backend


def accelerators() -> set[str]:
    """Kinds of devices beside the CPU that Keras' backend computes on here: gpu, tpu."""
    import keras

    return {device.split(":")[0] for device in keras.distribution.list_devices()} - {"cpu"}


def device_name() -> str:
    """What Keras' backend computes on here, by its vendor's name: the first accelerator, else the
    processor."""
    import keras

    if not accelerators():
        return processor_name()
    if keras.backend.backend() == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return str(details.get("device_name") or "GPU")


def _keep_memory() -> None:
    """Has glibc keep freed memory: else every large array is mapped and zeroed by the kernel anew,
    a third of a step's time with arrays of 64 MB."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)


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


def _configure_jax(layout: Layout, memory_limit_mb: int | None) -> None:
    """JAX reads all of this when it is imported. It takes its memory limit as a share of the GPU,
    and its threads from the processors that the process may use."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    for name, value in _COMPILED.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "compiled"))
    if memory_limit_mb is not None:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = str(memory_limit_mb / gpu_memory_mb())
    if not layout.gpus:
        if gpu_count():
            os.environ["JAX_PLATFORMS"] = "cpu"
        return
    import jax

    if jax.default_backend() == "cpu":  # it would train there, and say nothing
        raise RuntimeError(
            "JAX sees no GPU in a worker that was given one: install jax[cuda12] or jax[cuda13], "
            "whichever the driver has, or set workers.gpus_per_worker to 0"
        )


TENSORFLOW = Backend(
    name="tensorflow",
    keras="tensorflow",
    configure=_configure_tensorflow,
    engine="workers.engines.tensorflow_engine:TensorFlowEngine",
    learner="workers.engines.tensorflow_learner:TensorFlowLearner",
    dynamic=True,
    packages=("keras", "tensorflow"),
)

JAX = Backend(
    name="jax",
    keras="jax",
    configure=_configure_jax,
    engine="workers.engines.jax_engine:JaxEngine",
    learner="workers.engines.jax_learner:JaxLearner",
    fuses=True,
    flash=frozenset({"gpu"}),
    bfloat16=frozenset({"gpu"}),
    ahead=True,
    packages=("keras", "jax", "jaxlib"),
    extra="jax",
)

BACKENDS: Registry[Backend] = Registry("backend", (TENSORFLOW, JAX))
