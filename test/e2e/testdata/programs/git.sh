# A history with a merge, then everything that reads and rewrites it.
set -eu
export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_AUTHOR_DATE='1700000000 +0000'
export GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@example.com GIT_COMMITTER_DATE='1700000000 +0000'
git init -q -b main repo
cd repo
for i in $(seq 1 12); do
	mkdir -p d$((i % 3))
	seq "$i" 2000 >d$((i % 3))/f"$i"
	git add .
	git commit -q -m "commit $i"
done
git checkout -q -b side HEAD~5
echo side >side
git add side
git commit -q -m side
git checkout -q main
git merge -q -m merge side
git gc -q --aggressive
git fsck --full --strict --no-progress
git clone -q . ../local
git -C ../local status --porcelain
git clone -q "file://$PWD" ../packed
cd ../packed
git fsck --no-progress
git log --format=%H
git rev-parse 'HEAD^{tree}'
git grep -c 1999 | md5sum
git repack -adq
git count-objects -v | grep -E '^(count|in-pack|packs|garbage)'
git bundle create -q ../bundle main
git clone -q -b main ../bundle ../unbundled
git -C ../unbundled rev-parse HEAD
