"""Who may do what, and who reaches whom: rights no wider than the work, networks closed but for what is named."""

from typing import Any

import pytest

from tests.helm.charts import NAMESPACE, RELEASE, SETS, Object, Pod, named, of_kind, pods, rendered, selects

RUN_LABELS = {"app.kubernetes.io/managed-by": "lorafleet", "lorafleet.dev/run": "run-1"}  # of every pod of a run
KUBERAY = [values for values in SETS if values != "ray"]
RUN_NAMESPACES = {"tenants": {"lorafleet-acme", "lorafleet-bolt", "lorafleet-shared"}}


def run_namespaces(values: str) -> set[str]:
    return RUN_NAMESPACES.get(values, {"lorafleet-runs"})


@pytest.mark.parametrize("values", SETS)
def test_nothing_is_granted_in_the_whole_cluster(values: str) -> None:
    assert {each["kind"] for each in rendered(values)} & {"ClusterRole", "ClusterRoleBinding"} == set()


@pytest.mark.parametrize("values", KUBERAY)
def test_only_the_control_plane_has_rights_and_only_where_runs_live(values: str) -> None:
    objects = rendered(values)
    bindings = of_kind("RoleBinding", objects)
    assert {each["metadata"]["namespace"] for each in bindings} == run_namespaces(values)
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}]
        (role,) = [role for role in of_kind("Role", objects) if role["metadata"]["namespace"] == binding["metadata"]["namespace"]]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]


@pytest.mark.parametrize("values", KUBERAY)
def test_no_secret_can_be_read_and_nothing_is_granted_by_a_star(values: str) -> None:
    """Nor changed: the answer to a patch that changes nothing is the Secret. A standing cluster's tokens are our own."""
    for role in of_kind("Role", rendered(values)):
        for rule in role["rules"]:
            assert "*" not in [*rule["verbs"], *rule["resources"], *rule["apiGroups"]]
            assert "secrets" not in rule["resources"] or rule["verbs"] == ["create"] or rule["resourceNames"] == ["warm-tokens"]


def test_a_joined_ray_needs_no_rights_and_no_namespaces() -> None:
    assert {each["kind"] for each in rendered("ray")} & {"Role", "RoleBinding", "Namespace", "ResourceQuota"} == set()


def test_each_tenants_runs_have_their_own_service_account_namespace_and_quota() -> None:
    objects = rendered("tenants")
    accounts = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in of_kind("ServiceAccount", objects)}
    assert accounts - {(NAMESPACE, RELEASE)} == {
        ("lorafleet-acme", "acme-research"),
        ("lorafleet-acme", "lorafleet-run"),
        ("lorafleet-bolt", "lorafleet-run"),
        ("lorafleet-shared", "lorafleet-run"),
    }
    quotas = {each["metadata"]["namespace"]: each["spec"]["hard"]["requests.nvidia.com/gpu"] for each in of_kind("ResourceQuota", objects)}
    assert quotas == {"lorafleet-acme": "64", "lorafleet-bolt": "16", "lorafleet-shared": "16"}


@pytest.mark.parametrize("values", KUBERAY)
def test_namespaces_of_runs_enforce_the_restricted_standard_and_outlive_the_release(values: str) -> None:
    made = {each["metadata"]["name"]: each["metadata"] for each in of_kind("Namespace", rendered(values))}
    assert set(made) == (set() if values == "mtls" else run_namespaces(values))
    for metadata in made.values():
        assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert metadata["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("values", KUBERAY)
def test_runs_that_outlive_the_release_stay_closed_in(values: str) -> None:
    objects = rendered(values)
    for namespace in run_namespaces(values):
        kept = [each["metadata"].get("annotations") for each in policies(objects, namespace)]
        assert kept == [{"helm.sh/resource-policy": "keep"}] * 2


def policies(objects: tuple[Object, ...], namespace: str) -> list[Object]:
    return [each for each in of_kind("NetworkPolicy", objects) if each["metadata"]["namespace"] == namespace]


def of_pod(objects: tuple[Object, ...], pod: Pod) -> list[Object]:
    """The policies that select a pod."""
    return [each for each in policies(objects, pod.namespace) if selects(each["spec"]["podSelector"], pod.labels)]


def run_pod(namespace: str) -> Pod:
    return Pod("run-1-head", namespace, RUN_LABELS, {})


@pytest.mark.parametrize("values", SETS)
def test_every_pod_is_closed_both_ways_by_default(values: str) -> None:
    objects = rendered(values)
    namespaces = run_namespaces(values) if values in KUBERAY else set()
    strangers = [Pod("stranger", namespace, {"app": "x"}, {}) for namespace in namespaces]
    for pod in [*pods(objects), *map(run_pod, namespaces), *strangers]:
        closing = [each["spec"] for each in of_pod(objects, pod) if not {"ingress", "egress"} & each["spec"].keys()]
        assert [each["policyTypes"] for each in closing] == [["Ingress", "Egress"]], pod.name


@pytest.mark.parametrize("values", SETS)
def test_every_policy_selects_a_pod_that_there_is(values: str) -> None:
    objects = rendered(values)
    there = [*pods(objects), *map(run_pod, run_namespaces(values))]
    for policy in of_kind("NetworkPolicy", objects):
        selected = [pod for pod in there if policy in of_pod(objects, pod)]
        assert selected, policy["metadata"]["name"]


def reaches(peers: list[Any] | None, target: Pod, own_namespace: str) -> bool:
    """Whether a rule's peers hold a pod of this cluster. Blocks of addresses do not: those of pods are private."""
    if peers is None:
        return True
    return any(_holds(peer, target, own_namespace) for peer in peers)


def _holds(peer: Any, target: Pod, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        assert peer["ipBlock"]["cidr"] != "0.0.0.0/0" or "10.0.0.0/8" in peer["ipBlock"]["except"]
        return False
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": target.namespace}):
            return False
    elif target.namespace != own_namespace:
        return False
    return selects(peer.get("podSelector", {}), target.labels)


def open_ports(objects: tuple[Object, ...], source: Pod, target: Pod) -> set[int]:
    """Ports by which one pod reaches another: allowed on the way out and on the way in. -1: all of them."""
    out = _ports(objects, source, target, "egress", "to")
    into = _ports(objects, target, source, "ingress", "from")
    if -1 in out or -1 in into:
        return out if -1 in into else into
    return out & into


def _ports(objects: tuple[Object, ...], pod: Pod, other: Pod, direction: str, peers: str) -> set[int]:
    rules = [rule for each in of_pod(objects, pod) for rule in each["spec"].get(direction, [])]
    applying = [rule for rule in rules if reaches(rule.get(peers), other, pod.namespace)]
    return {port["port"] for rule in applying for port in rule.get("ports", [{"port": -1}])}


def pod_of(component: str, objects: tuple[Object, ...]) -> Pod:
    (found,) = [each for each in pods(objects) if each.labels["app.kubernetes.io/component"] == component]
    return found


def test_runs_reach_the_store_and_the_report_service_and_each_other_alone() -> None:
    objects = rendered("dev")
    run, plane = run_pod("lorafleet-runs"), pod_of("control-plane", objects)
    reached = {pod.name: open_ports(objects, run, pod) for pod in pods(objects)}
    assert reached == {"lorafleet": {7600}, "lorafleet-minio": {9000}, "lorafleet-postgresql": set(), "lorafleet-test": set()}
    assert open_ports(objects, run, run) == {-1}
    assert open_ports(objects, plane, run) == set(), "it asks the API server"


def test_runs_of_two_namespaces_reach_each_other_by_no_port() -> None:
    objects = rendered("tenants")
    acme, bolt = run_pod("lorafleet-acme"), run_pod("lorafleet-bolt")
    assert open_ports(objects, acme, bolt) == open_ports(objects, bolt, acme) == set()
    assert open_ports(objects, acme, pod_of("control-plane", objects)) == {7600}


def test_a_head_is_reached_by_the_operator_by_one_port_and_by_nobody_else() -> None:
    objects = rendered("tenants")
    head = run_pod("lorafleet-acme")
    operator = Pod("kuberay-operator", "kuberay", {"app.kubernetes.io/component": "kuberay-operator"}, {})
    assert _ports(objects, head, operator, "ingress", "from") == {8265}
    assert _ports(objects, head, Pod("x", "kuberay", {"app": "x"}, {}), "ingress", "from") == set()


def test_the_control_plane_reaches_its_servers_and_they_are_reached_by_nobody_else() -> None:
    objects = rendered("dev")
    plane, test = pod_of("control-plane", objects), pod_of("test", objects)
    minio, postgresql = pod_of("minio", objects), pod_of("postgresql", objects)
    assert (open_ports(objects, plane, minio), open_ports(objects, plane, postgresql)) == ({9000}, {5432})
    assert open_ports(objects, test, plane) == {7600}
    assert [open_ports(objects, source, postgresql) for source in (minio, test)] == [set(), set()]


def test_callers_and_scrapers_that_are_named_are_the_only_ones() -> None:
    objects = rendered("production")
    plane = pod_of("control-plane", objects)
    heard = {
        namespace: _ports(objects, plane, Pod("x", namespace, {}, {}), "ingress", "from")
        for namespace in ("gateways", "monitoring", "else")
    }
    assert heard == {"gateways": {7600}, "monitoring": {7601}, "else": set()}


@pytest.mark.parametrize("values", KUBERAY)
def test_dns_is_open_to_whoever_looks_names_up(values: str) -> None:
    objects = rendered(values)
    dns = Pod("dns", "kube-system", {}, {})
    looking = [pod for pod in pods(objects) if pod.labels["app.kubernetes.io/component"] not in {"minio", "postgresql"}]
    for pod in [*looking, *map(run_pod, run_namespaces(values))]:
        assert 53 in _ports(objects, pod, dns, "egress", "to"), pod.name


@pytest.mark.parametrize(
    ("address", "port"),
    [("http://10.1.2.3", 80), ("http://ray.example.com:8265", 8265), ("https://ray.example.com", 443), ("https://10.1.2.3:8443", 8443)],
)
def test_a_joined_ray_is_reached_by_the_port_of_its_address_alone(address: str, port: int) -> None:
    rules = named("NetworkPolicy", "lorafleet-control-plane", rendered("ray", "--set", f"serve.rayAddress={address}"))["spec"]["egress"]
    elsewhere = {53, 5432, 9000, 443 if port != 443 else 0}  # DNS, database, store, keys of the identity provider
    assert {each["port"] for rule in rules for each in rule["ports"]} - elsewhere == {port}


def test_dns_is_asked_where_and_by_what_port_the_values_say() -> None:
    objects = rendered("dev", "--set", "networkPolicy.dnsPorts={53,5353}")
    dns = Pod("dns", "kube-system", {}, {})
    assert _ports(objects, run_pod("lorafleet-runs"), dns, "egress", "to") == {53, 5353}


def test_the_control_plane_and_runs_reach_the_agent_that_gives_out_their_identity_and_no_other_metadata() -> None:
    objects = rendered("web-identity")
    for pod in (pod_of("control-plane", objects), run_pod("lorafleet-runs")):
        rules = [rule for each in of_pod(objects, pod) for rule in each["spec"].get("egress", [])]
        blocks = [(peer["ipBlock"], rule["ports"]) for rule in rules for peer in rule.get("to", []) if "ipBlock" in peer]
        assert [ports for block, ports in blocks if block["cidr"].startswith("169.254.")] == [[{"port": 80}]]
        assert all("169.254.0.0/16" in block["except"] for block, _ in blocks if block["cidr"] == "0.0.0.0/0")


def test_a_gateway_speaks_tls_with_the_service_and_by_the_name_of_its_certificate() -> None:
    objects = rendered("production")
    (backend,) = named("GRPCRoute", RELEASE, objects)["spec"]["rules"][0]["backendRefs"]
    policy = named("BackendTLSPolicy", RELEASE, objects)["spec"]
    assert policy["targetRefs"] == [{"group": "", "kind": "Service", "name": backend["name"], "sectionName": "grpc"}]
    assert [port["name"] for port in named("Service", RELEASE, objects)["spec"]["ports"] if port["port"] == backend["port"]] == ["grpc"]
    assert policy["validation"]["hostname"] in named("Certificate", RELEASE, objects)["spec"]["dnsNames"]
    assert policy["validation"]["caCertificateRefs"] == [{"group": "", "kind": "ConfigMap", "name": "lorafleet-ca"}]
    by_the_systems = rendered("production", "--set-json", "grpcRoute.backendTLS.caCertificateRefs=[]")
    assert named("BackendTLSPolicy", RELEASE, by_the_systems)["spec"]["validation"]["wellKnownCACertificates"] == "System"


def test_the_service_and_its_certificate_have_one_name() -> None:
    objects = rendered("production")
    certificate = named("Certificate", RELEASE, objects)["spec"]
    assert certificate["secretName"] == "lorafleet-tls"
    assert {"lorafleet.lorafleet.svc", "localhost", "lorafleet.example.com"} <= set(certificate["dnsNames"])
    assert named("Service", RELEASE, objects)["metadata"]["namespace"] == NAMESPACE
