#!/bin/sh
# Compiles steer.c; needs clang, llvm-strip and libbpf-dev.
set -eu
cd "$(dirname "$0")"
# No name of this machine's folders comes into the object, so that anybody builds the same.
clang -O2 -g -ffile-prefix-map="$PWD"=. -target bpf -Wall -Werror -I"/usr/include/$(uname -m)-linux-gnu" -c steer.c -o steer.o
llvm-strip -g steer.o
sha256sum steer.c >steer.c.sha256
