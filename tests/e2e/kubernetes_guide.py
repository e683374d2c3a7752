"""Pages of Kubernetes' guide (kubernetes.io/docs) as a reader types them, with `kubectl` for testbed, and what comes of
each line. The manifests have the names and fields of the pages' own, written for this test. Data.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXAMPLES = "https://k8s.io/examples"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and what it must say."""

    typed: str
    says: str
    """A regular expression that is found in its output."""
    refused: bool = False
    """It ends with an error, which says what to do instead."""
    instead: bool = False
    """Not of the page: what an error before it said to do."""


def works(typed: str, says: str = "") -> Line:
    """Return a line that does what the page says."""
    return Line(typed, says)


def refused(typed: str, says: str) -> Line:
    """Return a line that a lab does not take."""
    return Line(typed, says, refused=True)


def instead(typed: str, says: str = "") -> Line:
    """Return what does it here."""
    return Line(typed, says, instead=True)


@dataclass(frozen=True, slots=True)
class Page:
    """One page."""

    path: str
    """Below https://kubernetes.io/docs."""
    lines: Sequence[Line]


def workload(kind: str, name: str, labels: str, spec: str, more: str = "") -> str:
    """Return a Deployment or DaemonSet."""
    metadata = f"{{name: {name}, labels: {{{labels}}}}}"
    template = f"{{metadata: {{labels: {{{labels}}}}}, spec: {spec}}}"
    return (
        f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {metadata}\n"
        f"spec: {{{more}selector: {{matchLabels: {{{labels}}}}}, template: {template}}}\n"
    )


def dapi_pod(container: str, more: str = "") -> str:
    """Return the pod of the page about ConfigMaps, with another container each time."""
    image = "registry.k8s.io/busybox:1.27.2"
    containers = f"containers: [{{name: test-container, image: '{image}', {container}}}]"
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: dapi-test-pod}\n"
        f"spec: {{{containers}, restartPolicy: Never{more}}}\n"
    )


def from_map(variable: str, name: str, key: str) -> str:
    """Return a variable that has its value from a ConfigMap."""
    return f"{{name: {variable}, valueFrom: {{configMapKeyRef: {{name: {name}, key: {key}}}}}}}"


def config_map(name: str, data: str) -> str:
    """Return a ConfigMap."""
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{{data}}}\n"


def namespace(name: str) -> str:
    """Return a Namespace, as the page has it: JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"name": name}}})


NGINX = "{containers: [{name: nginx, image: 'nginx:1.14.2', ports: [{containerPort: 80}]}]}"
MY_NGINX = "{containers: [{name: my-nginx, image: nginx, ports: [{containerPort: 80}]}]}"
SNOWFLAKE = "{containers: [{name: snowflake, image: registry.k8s.io/serve_hostname, imagePullPolicy: Always}]}"
FLUENTD = """{
    tolerations: [{key: node-role.kubernetes.io/control-plane, operator: Exists, effect: NoSchedule}],
    containers: [{name: fluentd-elasticsearch, image: 'quay.io/fluentd_elasticsearch/fluentd:v5.0.1',
      resources: {limits: {memory: 200Mi}, requests: {cpu: 100m, memory: 200Mi}},
      volumeMounts: [{name: varlog, mountPath: /var/log}]}],
    terminationGracePeriodSeconds: 30,
    volumes: [{name: varlog, hostPath: {path: /var/log}}]}"""
CONFIG_VOLUME = ", volumes: [{name: config-volume, configMap: {name: special-config%s}}]"
MOUNT = "volumeMounts: [{name: config-volume, mountPath: /etc/config}]"

FILES: Mapping[str, str] = {
    "controllers/nginx-deployment.yaml": workload(
        "Deployment", "nginx-deployment", "app: nginx", NGINX, "replicas: 3, "
    ),
    "controllers/daemonset.yaml": workload(
        "DaemonSet", "fluentd-elasticsearch", "name: fluentd-elasticsearch", FLUENTD
    ).replace(
        "metadata: {name: fluentd-elasticsearch, ",
        "metadata: {name: fluentd-elasticsearch, namespace: kube-system, ",
        1,
    ),
    "admin/namespace-dev.json": namespace("development"),
    "admin/namespace-prod.json": namespace("production"),
    "admin/snowflake-deployment.yaml": workload(
        "Deployment", "snowflake", "app: snowflake", SNOWFLAKE, "replicas: 2, "
    ),
    "admin/dns/dnsutils.yaml": (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: dnsutils, namespace: default}\n"
        "spec: {containers: [{name: dnsutils, image: 'registry.k8s.io/e2e-test-images/agnhost:2.39',"
        " imagePullPolicy: IfNotPresent}], restartPolicy: Always}\n"
    ),
    "configmap/configmaps.yaml": config_map("special-config", "special.how: very")
    + "---\n"
    + config_map("env-config", "log_level: INFO"),
    "configmap/configmap-multikeys.yaml": config_map("special-config", "SPECIAL_LEVEL: very, SPECIAL_TYPE: charm"),
    "pods/pod-single-configmap-env-variable.yaml": dapi_pod(
        f"command: [/bin/sh, -c, env], env: [{from_map('SPECIAL_LEVEL_KEY', 'special-config', 'special.how')}]"
    ),
    "pods/pod-multiple-configmap-env-variable.yaml": dapi_pod(
        "command: [/bin/sh, -c, env], env: "
        f"[{from_map('SPECIAL_LEVEL_KEY', 'special-config', 'special.how')}, "
        f"{from_map('LOG_LEVEL', 'env-config', 'log_level')}]"
    ),
    "pods/pod-configmap-envFrom.yaml": dapi_pod(
        "command: [/bin/sh, -c, env], envFrom: [{configMapRef: {name: special-config}}]"
    ),
    "pods/pod-configmap-env-var-valueFrom.yaml": dapi_pod(
        "command: [/bin/echo, '$(SPECIAL_LEVEL_KEY) $(SPECIAL_TYPE_KEY)'], env: "
        f"[{from_map('SPECIAL_LEVEL_KEY', 'special-config', 'SPECIAL_LEVEL')}, "
        f"{from_map('SPECIAL_TYPE_KEY', 'special-config', 'SPECIAL_TYPE')}]"
    ),
    "pods/pod-configmap-volume.yaml": dapi_pod(f"command: [/bin/sh, -c, ls /etc/config/], {MOUNT}", CONFIG_VOLUME % ""),
    "pods/pod-configmap-volume-specific-key.yaml": dapi_pod(
        f"command: [/bin/sh, -c, cat /etc/config/keys], {MOUNT}",
        CONFIG_VOLUME % ", items: [{key: SPECIAL_LEVEL, path: keys}]",
    ),
    "run-my-nginx.yaml": workload("Deployment", "my-nginx", "run: my-nginx", MY_NGINX, "replicas: 2, "),
    "nginx-svc.yaml": (
        "apiVersion: v1\nkind: Service\nmetadata: {name: my-nginx, labels: {run: my-nginx}}\n"
        "spec: {ports: [{port: 80, protocol: TCP}], selector: {run: my-nginx}}\n"
    ),
    "special-config.yaml": config_map("special-config", "special.how: very, special.type: charm"),
}
"""By their path below https://k8s.io/examples; those without a directory lie where the reader types."""
POD_OF = "$(kubectl get pods -l %s -o name | head -1)"

PAGES: Sequence[Page] = (
    Page(
        "concepts/workloads/controllers/deployment",
        (
            works(
                f"kubectl apply -f {EXAMPLES}/controllers/nginx-deployment.yaml", "deployment/nginx-deployment created"
            ),
            works("kubectl get deployments", r"nginx-deployment +3/3 +3 +3"),
            refused("kubectl rollout status deployment/nginx-deployment", "testbed get deployments --watch"),
            works("kubectl get rs", r"nginx-deployment-[0-9a-f]+ +3 +3 +3"),
            works("kubectl get pods --show-labels", r"nginx-deployment-.*app=nginx,pod-template-hash="),
            refused(
                "kubectl set image deployment.v1.apps/nginx-deployment nginx=nginx:1.16.1", "testbed apply -f FILE"
            ),
            refused("kubectl set image deployment/nginx-deployment nginx=nginx:1.16.1", "testbed apply -f FILE"),
            refused("kubectl edit deployment/nginx-deployment", "testbed apply -f FILE"),
            instead(
                f"curl -sL {EXAMPLES}/controllers/nginx-deployment.yaml | sed s/1.14.2/1.16.1/ | kubectl apply -f -",
                "deployment/nginx-deployment configured",
            ),
            works("kubectl get deployments", r"nginx-deployment +3/3 +3 +3"),
            works("kubectl get rs", r"nginx-deployment-[0-9a-f]+ +0 +0 +0"),
            works("kubectl get pods", "nginx-deployment-"),
            works("kubectl describe deployments", r"Name: +nginx-deployment"),
            refused("kubectl rollout history deployment/nginx-deployment", "testbed apply -f FILE"),
            refused("kubectl rollout history deployment/nginx-deployment --revision=2", "testbed apply -f FILE"),
            refused(
                'kubectl annotate deployment/nginx-deployment kubernetes.io/change-cause="image updated to 1.16.1"',
                "testbed apply -f FILE",
            ),
            refused("kubectl rollout undo deployment/nginx-deployment", "testbed apply -f FILE"),
            refused("kubectl rollout undo deployment/nginx-deployment --to-revision=2", "testbed apply -f FILE"),
            works("kubectl get deployment nginx-deployment", r"nginx-deployment +3/3"),
            works("kubectl describe deployment nginx-deployment", r"Name: +nginx-deployment"),
            works("kubectl scale deployment/nginx-deployment --replicas=10", "deployment/nginx-deployment scaled"),
            refused(
                "kubectl autoscale deployment/nginx-deployment --min=10 --max=15 --cpu-percent=80",
                "testbed scale deployment NAME --replicas N",
            ),
            works("kubectl get deploy", r"nginx-deployment +10/10 +10 +10"),
            refused("kubectl rollout pause deployment/nginx-deployment", "testbed apply -f FILE"),
            refused("kubectl rollout resume deployment/nginx-deployment", "testbed apply -f FILE"),
            works("kubectl get deployment nginx-deployment -o yaml", r"(?s)kind: Deployment.*conditions:"),
            refused(
                """kubectl patch deployment/nginx-deployment -p '{"spec":{"progressDeadlineSeconds":600}}'""",
                "testbed apply -f FILE",
            ),
            works(
                f"kubectl delete -f {EXAMPLES}/controllers/nginx-deployment.yaml", "deployment/nginx-deployment deleted"
            ),
        ),
    ),
    Page(
        "tutorials/services/connect-applications-service",
        (
            works("kubectl apply -f ./run-my-nginx.yaml", "deployment/my-nginx created"),
            works("kubectl get pods -l run=my-nginx -o wide", r"(?s)my-nginx-.* 1/1 .*my-nginx-.* 1/1 "),
            refused(
                "kubectl get pods -l run=my-nginx -o custom-columns=POD_IP:.status.podIPs", "'wide', 'json', 'yaml'"
            ),
            refused("kubectl expose deployment/my-nginx", "testbed apply -f FILE: with a Service in it"),
            works("kubectl apply -f nginx-svc.yaml", "service/my-nginx created"),
            works("kubectl get svc my-nginx", r"my-nginx +ClusterIP +10\.\d+\.\d+\.\d+ +80/TCP"),
            works("kubectl describe svc my-nginx", r"(?s)Name: +my-nginx.*endpoints:\s+[\d.]+:80"),
            refused(
                "kubectl get endpointslices -l kubernetes.io/service-name=my-nginx",
                "no such kind: endpointslices .*endpoints",
            ),
            instead("kubectl get endpoints my-nginx", r"my-nginx +[\d.]+:80/TCP, [\d.]+:80/TCP"),
            works(f"kubectl exec {POD_OF % 'run=my-nginx'} -- printenv", "HOSTNAME=my-nginx-"),
            # A pod has no variables of Services here: names are found by DNS.
            refused(f"kubectl exec {POD_OF % 'run=my-nginx'} -- printenv | grep SERVICE", r"\A\Z"),
            works(
                "kubectl scale deployment my-nginx --replicas=0; kubectl scale deployment my-nginx --replicas=2;",
                "(?s)scaled from 2 to 0.*scaled from 0 to 2",
            ),
            works("kubectl get pods -l run=my-nginx -o wide", r"(?s)my-nginx-.* 1/1 .*my-nginx-.* 1/1 "),
            refused(
                "kubectl get services kube-dns --namespace=kube-system",
                "no service named kube-system/kube-dns .*logs dns",
            ),
            refused("kubectl run -i --tty --image busybox:1.37 dns-test --restart=Never --rm", "testbed apply -f FILE"),
            instead("kubectl exec shell1 -- getent hosts my-nginx", r"10\.\d+\.\d+\.\d+ +my-nginx\.default"),
            refused(
                "kubectl create secret tls nginxsecret --key /tmp/nginx.key --cert /tmp/nginx.crt",
                "testbed apply -f FILE",
            ),
            works("kubectl get secrets", "no secrets"),
            refused("kubectl create configmap nginxconfigmap --from-file=default.conf", "testbed apply -f FILE"),
            works("kubectl get configmaps", "no configmaps"),
            works("kubectl get svc my-nginx -o yaml | grep clusterIP -C 5", r"clusterIP: 10\."),
            works(
                "kubectl delete deployments,svc my-nginx", "(?s)service/my-nginx deleted.*deployment/my-nginx deleted"
            ),
        ),
    ),
    Page(
        "tasks/configure-pod-container/configure-pod-configmap",
        (
            refused(
                "kubectl create configmap game-config --from-file=configure-pod-container/configmap/",
                "testbed apply -f FILE: objects of a running lab",
            ),
            refused("kubectl apply -k .", "No such option '-k'"),
            refused(
                "kubectl create configmap special-config --from-literal=special.how=very"
                " --from-literal=special.type=charm",
                "testbed apply -f FILE: objects of a running lab",
            ),
            instead("kubectl apply -f special-config.yaml", "configmap/special-config created"),
            works("kubectl get configmaps special-config -o yaml", r"special\.how: very\n +special\.type: charm"),
            works("kubectl describe configmaps special-config", r"(?s)Name: +special-config.*special\.how"),
            refused(
                f"kubectl create -f {EXAMPLES}/pods/pod-single-configmap-env-variable.yaml", "testbed apply -f FILE"
            ),
            instead(
                f"kubectl apply -f {EXAMPLES}/pods/pod-single-configmap-env-variable.yaml", "pod/dapi-test-pod created"
            ),
            works("kubectl logs dapi-test-pod", "SPECIAL_LEVEL_KEY=very"),
            works("kubectl delete pod dapi-test-pod --now", "pod/dapi-test-pod deleted"),
            refused(f"kubectl create -f {EXAMPLES}/configmap/configmaps.yaml", "testbed apply -f FILE"),
            instead(
                f"kubectl apply -f {EXAMPLES}/configmap/configmaps.yaml",
                "(?s)special-config configured.*env-config created",
            ),
            refused(
                f"kubectl create -f {EXAMPLES}/pods/pod-multiple-configmap-env-variable.yaml", "testbed apply -f FILE"
            ),
            instead(f"kubectl apply -f {EXAMPLES}/pods/pod-multiple-configmap-env-variable.yaml", "created"),
            works("kubectl logs dapi-test-pod", r"(?s)\A(?=.*SPECIAL_LEVEL_KEY=very).*LOG_LEVEL=INFO"),
            works("kubectl delete pod dapi-test-pod --now", "deleted"),
            refused(f"kubectl create -f {EXAMPLES}/configmap/configmap-multikeys.yaml", "testbed apply -f FILE"),
            instead(
                f"kubectl apply -f {EXAMPLES}/configmap/configmap-multikeys.yaml", "configmap/special-config configured"
            ),
            refused(f"kubectl create -f {EXAMPLES}/pods/pod-configmap-envFrom.yaml", "testbed apply -f FILE"),
            instead(f"kubectl apply -f {EXAMPLES}/pods/pod-configmap-envFrom.yaml", "created"),
            works("kubectl logs dapi-test-pod | sort", "(?s)SPECIAL_LEVEL=very.*SPECIAL_TYPE=charm"),
            works("kubectl delete pod dapi-test-pod --now", "deleted"),
            refused(f"kubectl create -f {EXAMPLES}/pods/pod-configmap-env-var-valueFrom.yaml", "testbed apply -f FILE"),
            instead(f"kubectl apply -f {EXAMPLES}/pods/pod-configmap-env-var-valueFrom.yaml", "created"),
            works("kubectl logs dapi-test-pod", "very charm"),
            works("kubectl delete pod dapi-test-pod --now", "deleted"),
            refused(f"kubectl create -f {EXAMPLES}/pods/pod-configmap-volume.yaml", "testbed apply -f FILE"),
            instead(f"kubectl apply -f {EXAMPLES}/pods/pod-configmap-volume.yaml", "created"),
            works("kubectl logs dapi-test-pod", r"SPECIAL_LEVEL\nSPECIAL_TYPE\n"),
            works("kubectl delete pod dapi-test-pod --now", "deleted"),
            refused(
                f"kubectl create -f {EXAMPLES}/pods/pod-configmap-volume-specific-key.yaml", "testbed apply -f FILE"
            ),
            instead(f"kubectl apply -f {EXAMPLES}/pods/pod-configmap-volume-specific-key.yaml", "created"),
            works("kubectl logs dapi-test-pod", "^very"),
            works("kubectl delete pod dapi-test-pod --now", "deleted"),
            works(
                "kubectl delete configmaps/special-config configmaps/env-config",
                "(?s)special-config deleted.*env-config deleted",
            ),
        ),
    ),
    Page(
        "concepts/workloads/controllers/daemonset",
        (
            refused(
                f"kubectl apply -f {EXAMPLES}/controllers/daemonset.yaml",
                r"no recipe for this image.*--images '\*=echo'",
            ),
            instead(
                f"kubectl apply -f {EXAMPLES}/controllers/daemonset.yaml --images '*=echo'",
                "daemonset/kube-system/fluentd-elasticsearch created",
            ),
            works("kubectl get ds -n kube-system", r"fluentd-elasticsearch +2"),
            works("kubectl get pods -n kube-system -o wide", "(?s)node1.*node2|node2.*node1"),
            works(f"kubectl delete -f {EXAMPLES}/controllers/daemonset.yaml", "fluentd-elasticsearch deleted"),
        ),
    ),
    Page(
        "tasks/administer-cluster/namespaces-walkthrough",
        (
            works("kubectl get namespaces", r"default +Active"),
            refused(f"kubectl create -f {EXAMPLES}/admin/namespace-dev.json", "testbed apply -f FILE"),
            instead(f"kubectl apply -f {EXAMPLES}/admin/namespace-dev.json", "namespace/development created"),
            refused(f"kubectl create -f {EXAMPLES}/admin/namespace-prod.json", "testbed apply -f FILE"),
            instead(f"kubectl apply -f {EXAMPLES}/admin/namespace-prod.json", "namespace/production created"),
            works(
                "kubectl get namespaces --show-labels", r"(?s)development +Active.*name=development.*production +Active"
            ),
            refused("kubectl config view", "testbed status"),
            refused("kubectl config current-context", "testbed status"),
            refused("kubectl config set-context dev --namespace=development", "testbed get pods -n NAMESPACE"),
            refused("kubectl config use-context dev", "testbed get pods -n NAMESPACE"),
            works(
                f"kubectl apply -f {EXAMPLES}/admin/snowflake-deployment.yaml -n development",
                "deployment/development/snowflake created",
            ),
            works("kubectl get deployment -n development", r"snowflake +2/2"),
            works("kubectl get pods -l app=snowflake -n development", r"(?s)snowflake-.* 1/1 .*snowflake-.* 1/1 "),
            works("kubectl get deployment -n production", "no deployments in namespace production"),
            works("kubectl get pods -n production", "no pods in namespace production"),
            refused(
                "kubectl create deployment cattle --image=registry.k8s.io/serve_hostname -n production",
                "testbed apply -f FILE",
            ),
            instead(
                f"curl -sL {EXAMPLES}/admin/snowflake-deployment.yaml | sed 's/name: snow.*, l/name: cattle, l/;"
                " s/app: snowflake/app: cattle/g' | kubectl apply -n production -f -",
                "deployment/production/cattle created",
            ),
            works("kubectl scale deployment cattle --replicas=5 -n production", "cattle scaled from 2 to 5"),
            works("kubectl get deployment -n production", r"cattle +5/5"),
            works("kubectl get pods -l app=cattle -n production", r"(?s)(cattle-.* 1/1 .*){5}"),
            works("kubectl get pods -l app=cattle -n development", "no pods in namespace development"),
            works("kubectl delete namespaces development production", "(?s)development deleted.*production deleted"),
        ),
    ),
    Page(
        "tasks/administer-cluster/dns-debugging-resolution",
        (
            works(f"kubectl apply -f {EXAMPLES}/admin/dns/dnsutils.yaml", "pod/dnsutils created"),
            works("kubectl get pods dnsutils", r"dnsutils .*1/1 +Running"),
            refused("kubectl exec -ti dnsutils -- nslookup kubernetes.default", "can't resolve|NXDOMAIN"),
            works(
                "kubectl exec -ti dnsutils -- cat /etc/resolv.conf",
                r"(?s)search default\.svc\.cluster\.local svc\.cluster\.local cluster\.local.*nameserver 10\.96\.0\.10"
                "|nameserver 10.96.0.10.*search default.svc.cluster.local",
            ),
            works("kubectl get pods --namespace=kube-system -l k8s-app=kube-dns", "no pods in namespace kube-system"),
            works(
                "for p in $(kubectl get pods --namespace=kube-system -l k8s-app=kube-dns -o name);"
                " do kubectl logs --namespace=kube-system $p; done"
            ),
            instead("kubectl logs dns"),
            works("kubectl get svc --namespace=kube-system", "no services in namespace kube-system"),
            refused(
                "kubectl get endpoints kube-dns --namespace=kube-system",
                "no endpoint named kube-system/kube-dns .*logs dns",
            ),
            refused("kubectl -n kube-system edit configmap coredns", "-n goes after the verb"),
            refused("kubectl edit configmap coredns -n kube-system", "testbed apply -f FILE"),
            works("kubectl delete pod dnsutils --now", "deleted"),
        ),
    ),
)
