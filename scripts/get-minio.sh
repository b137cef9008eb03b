#!/usr/bin/env bash
# get-minio.sh: prints the path of a MinIO server; builds the pinned one into .tools/bin when there is none (some minutes, once).
exec "$(dirname "$0")/get-go-tool.sh" minio github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
