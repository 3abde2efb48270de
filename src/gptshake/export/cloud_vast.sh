set -euo pipefail
CDPATH="" cd -- "$(dirname -- "$0")"  # results lie beside this file, not among the sources that are sent
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
destroy() { vastai destroy instance "$id" <<< y; }  # newer versions ask
charged() { echo "instance $id runs and is charged: 'bash $0 fetch $id' copies the results and ends it, 'bash $0 destroy $id' ends it now" >&2; }
remote() { "${ssh[@]}" "$host" "$@"; }
copy() { rsync -az --no-owner --no-group -e "${ssh[*]}" "$@"; }
soon() { for _ in {1..60}; do "$@" && return; sleep 10; done; echo "instance $id did not start in 10 minutes" >&2; return 1; }
is_running() { [ "$(vastai show instance "$id" --raw | field actual_status)" = running ]; }
connect() {
  local url; url=$(vastai ssh-url "$id")  # ssh://root@address:port
  host=${url#ssh://}; port=${host##*:}; host=${host%:*}
  ssh=(ssh -p "$port" -o StrictHostKeyChecking=accept-new -o "UserKnownHostsFile=~/.ssh/gptshake-vast-$id" -o ServerAliveInterval=30 -o ConnectTimeout=10)
}

offered() {  # what an offer costs, disk included, and the most that it can come to
  vastai search offers "id=$1" --storage "$disk" --raw | python3 -c '
import json, sys

offer, hours = sys.argv[1], float(sys.argv[2])
try:
    hourly = json.load(sys.stdin)[0]["dph_total"]
except (ValueError, LookupError):
    sys.exit(f"offer {offer} cannot be rented now: list the offers again, and take another")
print(f"Offer {offer}: ${hourly:.2f} per hour, at most {hours:.1f} h = ${hours * hourly:.2f}")' "$1" "$hours"
}

rent() {
  [ ! -e "$name/finished" ] || { echo "finished earlier: $PWD/$name has the results"; exit; }
  [ -t 0 ] || { echo "this rents a machine and asks for its price to be typed, and there is no terminal here" >&2; exit 1; }
  for secret in $secrets; do [ -n "${!secret:-}" ] || { echo "$secret is not set, and the run needs it: export it" >&2; exit 1; }; done
  local offer most; offer=$(offered "$1"); most=${offer##*\$}
  read -r -p "Planned: $price $offer. Type $most to rent: " typed
  [ "${typed#$}" = "$most" ] || { echo "nothing is rented"; exit 1; }
  id=; trap unstarted EXIT
  id=$(vastai create instance "$1" --image "$image" --disk "$disk" --ssh --direct --label "$name" --cancel-unavail --raw | field new_contract)
  echo "instance $id is rented"
  soon is_running
  connect
  soon remote true
  remote '{ command -v rsync && command -v git; } >/dev/null || { apt-get update -qq && apt-get install -y -qq rsync git; } && mkdir -p gptshake-work gptshake-inputs'
  send
  [ ! -d "$name" ] || copy "$name/" "$host:gptshake-work/"  # what an earlier instance has left
  install_script | remote 'cat > gptshake-install.sh && bash gptshake-install.sh'
  run_script | remote 'cat > gptshake-run.sh'
  for secret in $secrets; do printf 'export %s=%q\n' "$secret" "${!secret}"; done |  # never on its disk
    remote "bash -c '. /dev/stdin; setsid nohup bash gptshake-run.sh > gptshake-run.log 2>&1 < /dev/null & sleep 5'"
  echo "started; Ctrl-C here ends the copying alone"
}

unstarted() {  # nothing is on it yet that could be lost
  if [ -z "$id" ]; then echo "whether something was rented is not known: vastai show instances" >&2
  elif destroy; then echo "nothing was started, and instance $id is destroyed" >&2
  else charged; fi
}

fetch() {  # in the order of the machine's own copies
  local rest=(--exclude='.*.????????' --exclude=lease.json --exclude=run.lock --exclude='checkpoints/')
  rest+=(--include='/runs/***' --include='/multirun/***' --include=/finished --exclude='*')
  { declare -f linked; echo 'cd ~/gptshake-work && { linked || linked; }'; } | remote 'bash -s' &&
    copy "${rest[@]}" "$host:gptshake-work/" "$name/" &&
    copy --delete --include='*/' --include='**/checkpoints/**' --exclude='*' "$host:gptshake-work/.checkpoints/" "$name/"
}

follow() {  # copies here until the training has ended, and destroys; sends nothing
  trap charged EXIT
  remote 'test -e gptshake-run.log' || { echo "nothing was started there, or it cannot be reached" >&2; exit 1; }
  until remote 'flock -n .gptshake-running true'; do
    fetch || echo "not all was copied; tried again in $seconds s"
    sleep "$seconds"
  done
  fetch || { echo "the results could not be copied" >&2; exit 1; }
  remote 'tail -n 20 gptshake-run.log'
  destroy
  trap - EXIT
  [ -e "$name/finished" ] || { echo "it ended without having finished; rent again to continue it" >&2; exit 1; }
}

id=${2:-}
case "${1:-offers}${2:+ with}" in
  offers) vastai search offers "$query" -o dph --storage "$disk" ;;  # the cheapest first
  "rent with") rent "$2"; follow ;;
  "fetch with") connect; follow ;;
  "destroy with") destroy ;;
  *) echo "bash $0 [rent <offer> | fetch <instance> | destroy <instance>]" >&2; exit 2 ;;
esac
