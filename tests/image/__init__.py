"""The image as a container; `make image-test` builds it first and says where it is."""
