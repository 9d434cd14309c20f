# A server with a session of two panes, each a shell on a terminal of its own.
set -eu
export TMUX_TMPDIR=$PWD TERM=xterm LC_ALL=C.UTF-8
tmux -f /dev/null new-session -d -x 80 -y 24 -s session "PS1='> ' sh"
tmux split-window -h -t session "PS1='> ' sh"
in_pane() { # pane, command; typed ahead of the prompt, which ends up before the first line
	tmux send-keys -t "session.$1" "echo; $2; tmux wait-for -S done-$1" Enter
	tmux wait-for "done-$1"
}
in_pane 0 'seq 1 50 | tail -n 3; echo "${TMUX_PANE}"'
in_pane 1 'until [ "$(stty size)" = "24 39" ]; do sleep 0.02; done; stty size'
tmux resize-pane -t session.1 -x 20
in_pane 1 'until [ "$(stty size)" = "24 20" ]; do sleep 0.02; done; stty size'
for pane in 0 1; do tmux capture-pane -p -S - -t "session.$pane" | grep -E '^([0-9]+ ?)+$|^%0$'; done
tmux list-panes -t session -F '#{pane_width}x#{pane_height}'
tmux kill-server
