# Compression and decompression by several threads each, through pipes and side by side.
set -eu
cat /usr/bin/[a-m]* 2>/dev/null | head -c 10000000 >data
zstd -q data -o packed
zstd -q -T4 -c data | zstd -dc | md5sum &
zstd -dc packed | md5sum
wait
zstd -q -T4 -5 -c data | zstd -dc | cmp - data && echo same
md5sum <data
