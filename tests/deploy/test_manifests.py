"""The manifests for Kubernetes and Compose: of their schemas, of the options that there are, and of one another."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema import Draft7Validator, Draft202012Validator
from servers.fixtures import need
from servers.install import installed

from pipelines.flows import parse_options

TOP = Path(__file__).parents[2]
FLINK = TOP / "deploy" / "flink"
COMPOSE = TOP / "deploy" / "compose" / "compose.yaml"
KUBERNETES = "1.31"


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(FLINK.glob("*.yaml")):
        if path.name != "kustomization.yaml":
            for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
                yield f"{path.stem}: {document['kind']}", document


MANIFESTS = dict(documents())
COMPOSED = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [name for name in MANIFESTS if "FlinkDeployment" not in name])
def test_a_manifest_is_of_kubernetes_schema(name):
    """Strictly: a field that there is not is refused."""
    kubernetes_validate.validate(MANIFESTS[name], KUBERNETES, strict=True)


def test_the_cluster_is_of_the_operator_s_schema():
    """That of the custom resource, in the operator's own jar; a field that there is not is refused."""
    need("flink-operator")
    (path,) = installed("flink-operator").glob("flinkdeployments*-v1.yml")
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    cluster = MANIFESTS["flink: FlinkDeployment"]
    Draft202012Validator(_strict(schema["properties"]["spec"])).validate(cluster["spec"])
    wrong = json.loads(json.dumps(cluster["spec"]))
    wrong["taskManager"]["replica"] = 1
    assert list(Draft202012Validator(_strict(schema["properties"]["spec"])).iter_errors(wrong))


def _strict(schema: Any) -> Any:
    if isinstance(schema, dict):
        strict = {key: _strict(value) for key, value in schema.items()}
        if "properties" in strict and not strict.get("x-kubernetes-preserve-unknown-fields"):
            strict.setdefault("additionalProperties", False)
        return strict
    return [_strict(one) for one in schema] if isinstance(schema, list) else schema


def test_all_of_it_is_applied():
    """Each file is a resource of the kustomization."""
    listed = yaml.safe_load((FLINK / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert sorted(listed) == sorted(path.name for path in FLINK.glob("*.yaml") if path.name != "kustomization.yaml")


def test_the_job_s_options_are_options(tmp_path, monkeypatch):
    """Those of the config map, as the job reads them."""
    (path := tmp_path / "flows.yaml").write_text(MANIFESTS["flows: ConfigMap"]["data"]["flows.yaml"])
    command = MANIFESTS["flows: Job"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:3] == ["python", "-m", "pipelines.flows"]
    options = parse_options([f"--config={path}"]).get_all_options()
    assert options["environment_config"] == "localhost:50000"
    assert options["job_endpoint"] == "flowbeam-job-server:8099"


def test_names_that_are_used_are_there():
    """Services and ports of the job's options, claims and config maps of the pods."""
    service = MANIFESTS["job-server: Service"]
    ports = {port["port"] for port in service["spec"]["ports"]}
    text = MANIFESTS["flows: ConfigMap"]["data"]["flows.yaml"]
    for name, port in re.findall(r"_endpoint: ([\w-]+):(\d+)", text):
        assert (name, int(port) in ports) == (service["metadata"]["name"], True)
    cluster = MANIFESTS["flink: FlinkDeployment"]["metadata"]["name"]
    assert f"flink_master: {cluster}-rest:8081" in text
    pool = MANIFESTS["flink: FlinkDeployment"]["spec"]["taskManager"]["podTemplate"]["spec"]
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in pool["volumes"]}
    assert claims == {MANIFESTS["storage: PersistentVolumeClaim"]["metadata"]["name"]}
    assert pool["containers"][0]["ports"][0]["containerPort"] == 50000


def test_nobody_else_reaches_a_pod():
    """Every template of pods has the labels that the policy is for, and names of this application come in alone."""
    policy = MANIFESTS["network: NetworkPolicy"]["spec"]
    wanted = policy["podSelector"]["matchLabels"].items()
    templates = [one["template"] for one in map(_spec, MANIFESTS.values()) if "template" in one]
    templates.append(MANIFESTS["flink: FlinkDeployment"]["spec"]["podTemplate"])
    assert len(templates) == 3
    assert all(wanted <= template["metadata"]["labels"].items() for template in templates)
    anything, *others = policy["ingress"]
    assert anything == {"from": [{"podSelector": policy["podSelector"]}]}
    assert [port["port"] for one in others for port in one["ports"]] == [8081, 9249]
    assert all("namespaceSelector" in who for one in others for who in one["from"])


def _spec(manifest: dict[str, Any]) -> dict[str, Any]:
    return manifest.get("spec", {})


@pytest.mark.parametrize("name", [name for name in MANIFESTS if "Policy" not in name and "Config" not in name])
def test_images_have_versions_and_nothing_runs_as_root(name):
    """Every container of a pod."""
    pods = [value for value in _nested(MANIFESTS[name]) if isinstance(value, dict) and "containers" in value]
    for pod in pods:
        for container in pod["containers"]:
            if "image" in container:
                assert re.search(r":\d", container["image"])
            both = {**pod.get("securityContext", {}), **container["securityContext"]}
            assert both["runAsNonRoot"] is True
            assert both["allowPrivilegeEscalation"] is False


def _nested(value: Any) -> Iterator[Any]:
    yield value
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nested(one)


def test_compose_is_of_its_schema():
    """Where the schema knows a field, its value is as it says; unknown fields are refused."""
    need("compose-schema")
    schema = json.loads((installed("compose-schema") / "compose_spec.json").read_text(encoding="utf-8"))
    composed = {key: value for key, value in COMPOSED.items() if key != "name"}  # which is younger than the schema
    Draft7Validator(schema).validate(composed)
    assert list(Draft7Validator(schema).iter_errors({"services": {"kafka": {"imag": "kafka"}}}))


def test_compose_s_services_depend_on_services_and_mount_volumes():
    """And those from elsewhere have versions; pages are reachable from this machine alone."""
    services = COMPOSED["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        mounted = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        files = {place for place in mounted if place.startswith(".")}
        assert all((COMPOSE.parent / file).is_file() for file in files), name
        assert mounted - files <= set(COMPOSED["volumes"]), name
        assert "build" in service or re.search(r":\d", service["image"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if "build" in service:
            context = (COMPOSE.parent / service["build"]["context"]).resolve()
            assert context == TOP
            assert (context / service["build"]["dockerfile"]).is_file()


def test_compose_s_comments_name_services():
    """`docker compose … run SERVICE` is of one that there is, and each page of a service that has its port."""
    head = COMPOSE.read_text(encoding="utf-8").partition("\nname:")[0]
    assert set(re.findall(r"run (?:--\w+ )*([\w-]+)", head)) <= set(COMPOSED["services"])
    opened = {port.split(":")[1] for service in COMPOSED["services"].values() for port in service.get("ports", [])}
    assert set(re.findall(r"localhost:(\d+)", head)) == opened


def test_compose_s_commands_are_commands():
    """The main job's options are understood; the other commands' modules exist."""
    services = COMPOSED["services"]
    parse_options(services["flows"]["command"])
    for name in ("flows", "traffic"):
        assert services[name]["entrypoint"][:2] == ["python", "-m"]
        assert (TOP / (services[name]["entrypoint"][2].replace(".", "/") + ".py")).is_file()
