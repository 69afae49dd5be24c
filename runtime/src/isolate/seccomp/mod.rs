//! Compiles the OCI seccomp profile of a container to BPF and loads it.
