"""Words of Kubernetes' API that the testbed does not support: none of them is a misspelling of another."""

_KINDS = """
APIService Binding CertificateSigningRequest ClusterRole ClusterRoleBinding ComponentStatus
ControllerRevision CronJob CSIDriver CSINode CustomResourceDefinition DaemonSet Endpoints EndpointSlice Event
HorizontalPodAutoscaler Ingress IngressClass IPAddress Job Lease LimitRange MutatingWebhookConfiguration
Node PersistentVolume PersistentVolumeClaim PodDisruptionBudget PodTemplate PriorityClass ReplicaSet
ReplicationController ResourceQuota Role RoleBinding RuntimeClass ServiceAccount ServiceCIDR StatefulSet
StorageClass ValidatingWebhookConfiguration VolumeAttachment
"""
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

KUBERNETES_KINDS = frozenset(_KINDS.split())
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
INSTEAD_OF_KIND = {
    "CronJob": "a Pod with restartPolicy: OnFailure",
    "Ingress": "a Service with type: NodePort",
    "Job": "a Pod with restartPolicy: OnFailure",
    "ReplicationController": "an apps/v1 Deployment",
    "StatefulSet": "an apps/v1 Deployment and a headless Service",
}
"""The same for kinds."""
