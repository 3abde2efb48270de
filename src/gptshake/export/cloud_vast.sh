set -euo pipefail
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

[ ! -e "$name/finished" ] || { echo "finished earlier: $name/ has the results"; exit; }

# 1. Offers, the cheapest first
if [ -z "${1:-}${INSTANCE:-}" ]; then
  vastai search offers "$query" -o dph --storage "$disk"
  exit
fi

# 2. Rent
if [ -z "${INSTANCE:-}" ]; then
  read -r -p "$price Type $confirm to rent: " typed
  [ "$typed" = "$confirm" ] || { echo "nothing is rented"; exit 1; }
  INSTANCE=$(vastai create instance "$1" --image "$image" --disk "$disk" --ssh --direct --label "$name" --cancel-unavail --raw | field new_contract)
fi
echo "instance $INSTANCE; to end it at once: vastai destroy instance $INSTANCE"
until [ "$(vastai show instance "$INSTANCE" --raw | field actual_status)" = running ]; do sleep 10; done
url=$(vastai ssh-url "$INSTANCE")  # ssh://root@address:port
host=${url#ssh://}; port=${host##*:}; host=${host%:*}
ssh=(ssh -p "$port" -o StrictHostKeyChecking=accept-new -o ServerAliveInterval=30 -o ConnectTimeout=20)
remote() { "${ssh[@]}" "$host" "$@"; }
send() { rsync -az -e "${ssh[*]}" "$@"; }
until remote true; do sleep 10; done

# 3. Code, inputs, secrets, and what an earlier instance has left here
remote 'command -v rsync git >/dev/null || { apt-get update -qq && apt-get install -y -qq rsync git; }; mkdir -p gptshake-work gptshake-inputs'
send_code
send_inputs
[ ! -d "$name" ] || send "$name/" "$host:gptshake-work/"
for secret in $secrets; do printf 'export %s=%q\n' "$secret" "${!secret:?set it first}"; done | remote 'umask 077; cat > .gptshake-secrets'

# 4. Install, and run without this connection
install_script | remote 'cat > gptshake-install.sh && bash gptshake-install.sh'
run_script | remote 'cat > gptshake-run.sh'
remote '. ./.gptshake-secrets; setsid nohup bash gptshake-run.sh >> gptshake-run.log 2>&1 < /dev/null & sleep 5'

# 5. Copy here until it has ended, checkpoints first
fetch() {
  send --delete --include='*/' --include='**/checkpoints/**' --exclude='*' "$host:gptshake-work/" "$name/" &&
    send --delete --exclude='checkpoints/' "$host:gptshake-work/" "$name/"
}
until remote 'flock -n .gptshake-running true'; do
  fetch || echo "not copied; tried again in $seconds s"
  sleep "$seconds"
done
fetch || { echo "the results could not be copied; instance $INSTANCE is kept, and charged for"; exit 1; }
remote 'tail -n 20 gptshake-run.log'

# 6. End
vastai destroy instance "$INSTANCE" --yes
