"""Manifests that several tests apply."""


def deployment(name: str, image: str, *, port: int, replicas: int = 1, labels: str = "") -> str:
    """Return a Deployment of pods `app: NAME`, with one container that has the image's name."""
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{{labels}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: {image}, image: {image}, ports: [{{containerPort: {port}}}]}}]}}
"""
