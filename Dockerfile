# A Debian 12 with the testbed in /opt/testbed:
#
#   docker build -t overlay-testbed .
#   docker run --rm -it --privileged overlay-testbed                 # the lab of the README's first page, then a shell
#   docker run --rm --privileged overlay-testbed scripts/test --unit # or any other command, in the clone
#
# --privileged: a lab makes namespaces, links, rules and a TUN device. They all end with the container.
ARG BASE=debian:12
FROM ${BASE}
WORKDIR /opt/testbed
COPY . .
RUN scripts/install --image && apt-get clean && rm -rf /var/lib/apt/lists/*
CMD ["bash", "-c", "testbed up && testbed ping && exec bash"]
