# Restores what an earlier machine has copied, trains, and copies. The training writes to the machine's own disk.
set -euo pipefail
export RCLONE_CONFIG=/dev/null RCLONE_LOCAL_NO_CHECK_UPDATED=true  # metrics.csv grows while it is copied; what was there is copied
mkdir -p ~/gptshake-work
cd ~/gptshake-work
exec 8> ~/.gptshake-running
flock -n 8 || { echo "it is running already"; exit 0; }
copied() {  # checkpoints first: their rows are on the disk before they are, so what is copied can be resumed whenever the machine is lost
  flock 9
  rclone sync . "$place" --include '**/checkpoints/**' && rclone sync . "$place" --exclude '**/checkpoints/**'
} 9> ~/.gptshake-copying
if [ -n "$place" ]; then
  rclone copy "$place" . || [ $? = 3 ]  # 3: nothing is there yet; after any other error nothing may be copied over it
fi
[ ! -e finished ] || { echo "finished earlier: nothing to do"; exit 0; }
copies=
if [ -n "$place" ] && [ "${SKYPILOT_NODE_RANK:-0}" = 0 ]; then
  copied  # a place that cannot be written to is found now and not at the end
  while sleep "$seconds" > /dev/null 2>&1 && kill -0 $$; do copied || echo "not copied; tried again in $seconds s"; done 8>&- &
  copies=$!
fi
trap : TERM  # the training gets it too, writes a checkpoint and ends; then that is copied
code=0
timeout --kill-after=300 "$limit" "${train[@]}" 8>&- || code=$?
[ "$code" != 0 ] || touch finished
if [ -n "$copies" ]; then
  kill "$copies"
  copied || { sleep 60; copied; } || { echo "the last state could not be copied" >&2; exit 1; }
fi
exit "$code"
