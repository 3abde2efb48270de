# Installs a fresh machine with the exact versions of constraints.txt; on one that is installed already it does nothing.
set -euo pipefail
export PATH="$HOME/.local/bin:$PATH" DEBIAN_FRONTEND=noninteractive
version=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1) || version=
[ "${version%%.*}" -ge "$driver" ] 2>/dev/null || {  # before 3 GB are fetched
  echo "CUDA $cuda needs an NVIDIA driver of version $driver or newer, and this machine has ${version:-none}: destroy it and take another one." >&2
  exit 1
}
lacking() { for tool in git make curl rsync rclone flock; do command -v "$tool" > /dev/null || return 0; done; return 1; }
sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
for _ in {1..30}; do
  lacking || break
  $sudo apt-get update -qq || true  # of the image's sources one may fail that is not needed
  $sudo apt-get install -y -qq git make curl rsync rclone util-linux || sleep 10  # a machine that has just started installs its own updates
done
! lacking || { echo "git, make, curl, rsync, rclone and flock could not be installed: destroy this machine and take another one." >&2; exit 1; }
command -v uv >/dev/null || curl -LsSf https://astral.sh/uv/install.sh | sh
uv python install "$python"
cd "$sources"
make venv PYTHON="$(uv python find "$python")" TORCH_INDEX=
.venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "torch finds no GPU: destroy this machine and take another one." >&2
  nvidia-smi >&2 || true
  exit 1
}
