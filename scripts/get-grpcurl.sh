#!/usr/bin/env bash
# get-grpcurl.sh: prints the path of grpcurl; builds the pinned one into .tools/bin when there is none.
exec "$(dirname "$0")/get-go-tool.sh" grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4
