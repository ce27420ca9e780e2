"""Builds a kustomization as simple as ours, and checks what schemas cannot: that the manifests fit together.

usage: kubernetes.py build DIR | check FILE
"""
import hashlib
import pathlib
import sys
import tomllib

import yaml

WORKLOADS = ("StatefulSet", "Job", "Deployment")
KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "configMapGenerator", "images"}
CLUSTER_WIDE = {"Namespace"}


def build(folder):
    """The objects that `kustomize build` would print, for the fields in KNOWN."""
    folder = pathlib.Path(folder)
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(kustomization) - KNOWN
    assert not unknown, f"kustomization.yaml uses {unknown}, which this script does not know"
    objects = []
    for name in kustomization["resources"]:
        objects += [one for one in yaml.safe_load_all((folder / name).read_text()) if one]
    unlisted = {path.name for path in folder.glob("*.yaml")} - set(kustomization["resources"]) - {"kustomization.yaml"}
    assert not unlisted, f"not listed in kustomization.yaml: {unlisted}"
    renamed = {}
    for generator in kustomization["configMapGenerator"]:
        data = {pathlib.Path(file).name: (folder / file).read_text() for file in generator["files"]}
        digest = hashlib.sha256(repr(sorted(data.items())).encode()).hexdigest()[:10]
        renamed[generator["name"]] = f"{generator['name']}-{digest}"
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": renamed[generator["name"]]}, "data": data})
    labels = {key: value for group in kustomization["labels"] for key, value in group["pairs"].items()}
    images = {image["name"]: f"{image['newName']}:{image['newTag']}" for image in kustomization["images"]}
    for one in objects:
        one["metadata"].setdefault("labels", {}).update(labels)
        if one["kind"] not in CLUSTER_WIDE:
            one["metadata"]["namespace"] = kustomization["namespace"]
        if one["kind"] in WORKLOADS:
            pod = one["spec"]["template"]["spec"]
            for container in pod["containers"]:
                container["image"] = images.get(container["image"], container["image"])
            for volume in pod["volumes"]:
                if "configMap" in volume:
                    volume["configMap"]["name"] = renamed.get(volume["configMap"]["name"], volume["configMap"]["name"])
    return objects


def check(objects):
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    pods = [one for one in objects if one["kind"] in WORKLOADS]
    by_labels = [one["spec"]["template"]["metadata"]["labels"] for one in pods]
    problems = []

    def need(condition, text):
        if not condition:
            problems.append(text)

    for one in pods:
        where = f"{one['kind']}/{one['metadata']['name']}"
        pod = one["spec"]["template"]["spec"]
        need(("ServiceAccount", pod["serviceAccountName"]) in names, f"{where}: no such service account")
        claims = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        volumes = {volume["name"] for volume in pod["volumes"]} | claims
        for volume in pod["volumes"]:
            for kind, key in (("ConfigMap", "name"), ("Secret", "secretName")):
                source = volume.get(kind[0].lower() + kind[1:])
                # Secrets are made by a person, and no part of the manifests: without them, too, the pods start.
                need(not source or (kind, source[key]) in names or (kind == "Secret" and source.get("optional")), f"{where}: no {kind} {source and source[key]}")
        need(pod["securityContext"].get("runAsNonRoot") is True, f"{where}: may run as root")
        need(pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", f"{where}: no seccomp profile")
        for container in pod["containers"]:
            context = container["securityContext"]
            need(context.get("allowPrivilegeEscalation") is False, f"{where}: may escalate")
            need(context["capabilities"]["drop"] == ["ALL"], f"{where}: keeps capabilities")
            need(context.get("readOnlyRootFilesystem") is True, f"{where}: writable root")
            need("memory" in container["resources"]["limits"], f"{where}: memory without limit")
            ports = {port["name"] for port in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    need(container[probe]["httpGet"]["port"] in ports, f"{where}: {probe} asks an unnamed port")
            for mount in container["volumeMounts"]:
                need(mount["name"] in volumes, f"{where}: no volume {mount['name']}")

    def selects(selector):
        return any(selector.items() <= labels.items() for labels in by_labels)

    for one in objects:
        where, spec = f"{one['kind']}/{one['metadata']['name']}", one.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if selector:
            need(selects(selector.get("matchLabels", selector)), f"{where}: selects no pod")
        if one["kind"] == "StatefulSet":
            need(("Service", spec["serviceName"]) in names, f"{where}: no service {spec['serviceName']}")
            container = spec["template"]["spec"]["containers"][0]
            for probe in ("livenessProbe", "readinessProbe"):
                need(probe in container, f"{where}: no {probe}")
            # An update is an overlap: two pods, one at a time, the next only when Redis sends to the one before.
            update = spec["updateStrategy"]
            need(spec["replicas"] >= 2, f"{where}: nobody listens while the only pod is replaced")
            need(update["type"] == "RollingUpdate", f"{where}: an update is no rolling one")
            need(update.get("rollingUpdate", {}).get("maxUnavailable", 1) == 1, f"{where}: more than one pod at a time")
            need(not update.get("rollingUpdate", {}).get("partition"), f"{where}: an update leaves some pods out")
            need(container["readinessProbe"]["httpGet"]["path"] == "/readyz", f"{where}: ready means subscribed")
            need(container["livenessProbe"]["httpGet"]["path"] == "/healthz", f"{where}: without Redis it is alive")
            need(spec["template"]["spec"]["terminationGracePeriodSeconds"] > 20, f"{where}: shorter than shutdown_grace")
        if one["kind"] == "PodDisruptionBudget":
            need(spec.get("maxUnavailable") == 1, f"{where}: must leave one listening, and let one go")
    # The replication is a setting like others, in one place.
    settings = [tomllib.loads(one["data"]["config.toml"]) for one in objects if one["kind"] == "ConfigMap"]
    replication = settings[0]["store"]["cassandra"].get("replication") if settings else None
    need(replication, "config.toml: the schema job knows no store.cassandra.replication")
    for one in objects:
        if one["kind"] == "Job":
            args = " ".join(one["spec"]["template"]["spec"]["containers"][0]["args"])
            need("--config=/etc/cascor-ingest/config.toml" in args, "the schema job does not read config.toml")
            need("--replication" not in args, "the schema job has a replication of its own")
    for kind in ("StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "ServiceAccount", "ConfigMap", "Job"):
        need(any(one["kind"] == kind for one in objects), f"no {kind}")
    return problems


def main():
    verb, path = sys.argv[1:]
    if verb == "build":
        yaml.safe_dump_all(build(path), sys.stdout, sort_keys=False)
    else:
        objects = [one for one in yaml.safe_load_all(open(path)) if one]
        problems = check(objects)
        print("\n".join(problems) or f"{len(objects)} objects fit together")
        sys.exit(bool(problems))


main()
