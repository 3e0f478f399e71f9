"""The cluster configs that the repository ships are what Ray, KubeRay and Kubernetes accept."""

from __future__ import annotations

import json
import re
import tomllib
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "configs" / "cluster"
RAY_UP = yaml.safe_load((FOLDER / "ray.yaml").read_text())
KUBERNETES = list(yaml.safe_load_all((FOLDER / "kuberay.yaml").read_text()))
CLUSTER = next(item for item in KUBERNETES if item["kind"] == "RayCluster")


def test_ray_up_accepts_its_config() -> None:
    """By Ray's schema; and by the code with which `ray up` fills in and checks what it reads."""
    validate_config(prepare_config(deepcopy(RAY_UP)))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    jsonschema.validate(RAY_UP, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**RAY_UP, "worker_nodes_count": 2}, schema)


def test_every_machine_of_ray_up_asks_for_the_token() -> None:
    starts = RAY_UP["head_start_ray_commands"][-1], RAY_UP["worker_start_ray_commands"][-1]
    assert all("RAY_AUTH_MODE=token" in start and "ray start" in start for start in starts)
    assert "~/.ray/auth_token" in RAY_UP["file_mounts"]


class Strict(BaseModel):
    """Names that KubeRay does not know are refused, and so are values of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Group(Strict):
    ray_start_params: dict[str, str] = Field(alias="rayStartParams")
    template: dict[str, Any]


class WorkerGroup(Group):
    name: str = Field(alias="groupName")
    replicas: int = Field(ge=0)
    fewest: int = Field(alias="minReplicas", ge=0)
    most: int = Field(alias="maxReplicas", ge=0)


class AuthOptions(Strict):
    mode: Literal["token", "disabled"]
    secret: str = Field(alias="secretName")


class ClusterSpec(Strict):
    """The fields used here of ray.io/v1 RayClusterSpec, of KubeRay's
    ray-operator/apis/ray/v1/raycluster_types.go; `authOptions` as its API reference of 1.6.2."""

    version: str = Field(alias="rayVersion", pattern=r"^\d+\.\d+\.\d+$")
    auth: AuthOptions = Field(alias="authOptions")
    head: Group = Field(alias="headGroupSpec")
    workers: list[WorkerGroup] = Field(alias="workerGroupSpecs", min_length=1)


class Metadata(Strict):
    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,40}[a-z0-9])?$")


class RayCluster(Strict):
    api: Literal["ray.io/v1"] = Field(alias="apiVersion")
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


def test_kuberay_accepts_its_cluster() -> None:
    cluster = RayCluster.model_validate(CLUSTER)
    assert cluster.spec.auth.mode == "token"
    assert all(group.fewest <= group.replicas <= group.most for group in cluster.spec.workers)
    wrong = {**CLUSTER, "spec": {**CLUSTER["spec"], "workerGroups": []}}
    with pytest.raises(ValidationError, match="workerGroups"):
        RayCluster.model_validate(wrong)


def templates() -> dict[str, Any]:
    spec = CLUSTER["spec"]
    workers = {group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"], **workers}


@pytest.mark.parametrize("name", templates())
def test_kubernetes_accepts_the_pods(name: str) -> None:
    """KubeRay makes a pod of each template."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, **templates()[name]}
    kubernetes_validate.validate(pod, "1.30", strict=True)
    container = pod["spec"]["containers"][0]
    with pytest.raises(kubernetes_validate.ValidationError):
        wrong = {**pod, "spec": {"containers": [{**container, "enviroment": []}]}}
        kubernetes_validate.validate(wrong, "1.30", strict=True)


@pytest.mark.parametrize("item", [item for item in KUBERNETES if item is not CLUSTER])
def test_kubernetes_accepts_what_is_its_own(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, "1.30", strict=True)


def test_names_agree() -> None:
    """Volumes that are mounted are there, and the claim that they name is made."""
    [claim] = [item["metadata"]["name"] for item in KUBERNETES if item is not CLUSTER]
    for template in templates().values():
        spec = template["spec"]
        volumes = {volume["name"]: volume["persistentVolumeClaim"] for volume in spec["volumes"]}
        assert {volume["claimName"] for volume in volumes.values()} == {claim}
        mounts = {mount["name"] for one in spec["containers"] for mount in one["volumeMounts"]}
        assert mounts <= set(volumes)


def test_one_version_of_ray_is_named_everywhere() -> None:
    """Ray joins a cluster of its own version alone. It is the one of the newest tested set."""
    newest = (ROOT / "configs" / "constraints" / "newest.txt").read_text()
    [version] = re.findall(r"^ray==(\S+)$", newest, re.MULTILINE)
    assert CLUSTER["spec"]["rayVersion"] == version
    assert f"rayproject/ray:{version}-" in (FOLDER / "Dockerfile").read_text()
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert any(requirement.startswith("ray>=") for requirement in requirements)
