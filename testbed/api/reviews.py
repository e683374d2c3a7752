"""Questions of a client about its own rights: it may do everything, since there are no accounts. Pure."""

from collections.abc import Mapping
from typing import Any

ALL = ["*"]
RULES: Mapping[str, Any] = {
    "resourceRules": [{"verbs": ALL, "apiGroups": ALL, "resources": ALL}],
    "nonResourceRules": [{"verbs": ALL, "nonResourceURLs": ALL}],
    "incomplete": False,
}
_ANSWERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {"allowed": True},
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): RULES,
    ("authentication.k8s.io/v1", "SelfSubjectReview"): {"userInfo": {"username": "testbed", "groups": ["all"]}},
}
REVIEWS: Mapping[str, Mapping[str, Any]] = {
    f"/apis/{version}/{kind.lower()}s": {
        "apiVersion": version,
        "kind": kind,
        "metadata": {},
        "spec": {},
        "status": said,
    }
    for (version, kind), said in _ANSWERS.items()
}
"""Path → the answer to a POST, whatever its body says."""
