# Compiles a program twice, the second time with link-time optimisation in parallel, and runs it.
set -eu
gcc -O2 -g -pthread -o plain "$1"/threads.c -lm
./plain
gcc -O1 -flto=auto -static -pthread -o optimised "$1"/threads.c -lm
./optimised
