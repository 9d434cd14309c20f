# A parallel search of a large tree; a Rust program.
set -eu
rg --threads 4 --count-matches '(?i)\bdefine\s+\w+_MAX\b' /usr/include | sort | md5sum
rg --json --threads 2 'typedef struct' /usr/include | grep -c '"type":"match"'
