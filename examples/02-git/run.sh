#!/bin/sh
# Clones a local repository and reads its history.
. "$(dirname "$0")/../common.sh"

work=$OUT/git
mkdir -p "$work"
cd "$work"

# The origin: a small repository with some history.
git init -q -b main origin
for n in 1 2 3; do
    echo "line $n" >>origin/file
    git -C origin add file
    git -C origin -c user.name=Example -c user.email=example@example.com commit -q -m "Add line $n"
done

reset() { rm -rf clone; }
govern git-clone git clone --no-local origin clone

reset() { :; }
govern git-log git -C clone --no-pager log --stat
