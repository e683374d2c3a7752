"""Words of Kubernetes' API that the testbed does not support: none of them is a misspelling of another."""

_OF_OBJECTS = """
creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation managedFields
ownerReferences resourceVersion selfLink status uid
"""
_OF_PODS = """
activeDeadlineSeconds affinity automountServiceAccountToken dnsConfig enableServiceLinks ephemeralContainers
hostAliases hostIPC hostPID hostUsers hostnameOverride imagePullSecrets initContainers nodeSelector os overhead
preemptionPolicy priority priorityClassName readinessGates resourceClaims resources runtimeClassName schedulerName
schedulingGates securityContext serviceAccount serviceAccountName setHostnameAsFQDN subdomain tolerations
topologySpreadConstraints
"""
_OF_CONTAINERS = """
allowPrivilegeEscalation appArmorProfile capabilities envFrom fsGroup fsGroupChangePolicy grpc imagePullPolicy lifecycle
mountPropagation procMount readOnlyRootFilesystem recursiveReadOnly resizePolicy restartPolicy runAsGroup runAsNonRoot
runAsUserName seLinuxOptions seccompProfile service startupProbe stdin stdinOnce subPathExpr supplementalGroups sysctls
terminationMessagePath terminationMessagePolicy tty valueFrom volumeDevices windowsOptions
"""
_OF_VOLUMES = """
awsElasticBlockStore azureDisk azureFile cephfs cinder configMap csi downwardAPI ephemeral fc flexVolume flocker
gcePersistentDisk gitRepo glusterfs iscsi nfs persistentVolumeClaim photonPersistentDisk portworxVolume projected
quobyte rbd scaleIO secret storageos vsphereVolume
"""
_OF_SERVICES = """
allocateLoadBalancerNodePorts appProtocol externalIPs externalName healthCheckNodePort internalTrafficPolicy
loadBalancerClass loadBalancerIP loadBalancerSourceRanges publishNotReadyAddresses trafficDistribution
"""
_OF_DEPLOYMENTS = "matchExpressions minReadySeconds paused progressDeadlineSeconds revisionHistoryLimit updateStrategy"

KUBERNETES_KEYS = frozenset(
    " ".join((_OF_OBJECTS, _OF_PODS, _OF_CONTAINERS, _OF_VOLUMES, _OF_SERVICES, _OF_DEPLOYMENTS)).split()
)

INSTEAD = {
    **dict.fromkeys(("ephemeral", "persistentVolumeClaim"), "emptyDir: {}, or hostPath: {path: …}"),
    "activeDeadlineSeconds": "it left out; delete removes a pod",
    "affinity": "nodeSelector, or nodeName",
    "externalIPs": "type: NodePort",
    "externalName": "a Service with a selector: no packet leaves a lab",
    "hostIPC": "it left out",
    "hostPID": "it left out; exec NODE shows all of a node's processes",
    "loadBalancerSourceRanges": "it left out",
    "matchExpressions": "matchLabels",
    "readinessGates": "a readinessProbe",
    "sysctls": "it left out",
}
"""Key that would have an effect but is not supported → its replacement."""
_INSTEAD_BY_KINDS = {
    "Job CronJob": "a Pod with restartPolicy: OnFailure",
    "ReplicationController": "an apps/v1 ReplicaSet",
    "StatefulSet": "an apps/v1 Deployment and a headless Service",
    "PodTemplate ControllerRevision": "an apps/v1 Deployment",
    "HorizontalPodAutoscaler": "replicas: N, or scale deployment NAME --replicas N",
    "PodDisruptionBudget": "it left out; a drain keeps to maxUnavailable of a Deployment",
    "Ingress IngressClass": "a Service with type: NodePort",
    "Endpoints EndpointSlice": "a Service with a selector",
    "ServiceCIDR IPAddress": "it left out; Services get addresses of 10.96.0.0/16",
    "PersistentVolume PersistentVolumeClaim StorageClass VolumeAttachment CSIDriver CSINode": (
        "a volume of the pod, emptyDir: {} or hostPath: {path: …}"
    ),
    "Role RoleBinding ClusterRole ClusterRoleBinding CertificateSigningRequest": "it left out; a lab has no accounts",
    "ResourceQuota LimitRange": "resources of each container",
    "PriorityClass": "it left out; no pod makes room for another",
    "RuntimeClass": "it left out; every container has the same sandbox",
    "Node": "nodes: in the cluster file, or node add NAME",
    "Binding": "nodeName: in the pod",
    "Event ComponentStatus Lease": "it left out; the lab writes its own",
    "APIService CustomResourceDefinition MutatingWebhookConfiguration ValidatingWebhookConfiguration": (
        "it left out; a lab has no API server"
    ),
}
INSTEAD_OF_KIND = {kind: instead for kinds, instead in _INSTEAD_BY_KINDS.items() for kind in kinds.split()}
"""The same for kinds: every one of Kubernetes' that a lab does not have."""
