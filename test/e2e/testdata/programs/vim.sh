# Ex mode: substitution, sorting, expressions, filters through a shell.
set -eu
seq 1 1000 >numbers
vim -Nu NONE -n -es -c '%s/\(\d\)\(\d\)$/\2-\1/' -c 'g/7/m0' -c 'sort! n' -c '1,5d' \
	-c 'let @a = join(map(range(5), "v:val * v:val"), ",")' -c '$put a' -c 'w! changed' \
	-c '1,20!tac' -c 'r !wc -l < changed' -c 'wq! filtered' numbers
md5sum numbers changed filtered
tail -n 2 changed
