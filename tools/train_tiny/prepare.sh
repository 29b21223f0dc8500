#!/bin/bash
# Fetch the art, render it and pack it: everything that training and evaluation draw from, in the folder named.
#   bash tools/train_tiny/prepare.sh .train
set -euo pipefail
out=${1:-.train}
here=$(dirname "$0")
python=${PYTHON:-python3}
apt-get install -y --no-install-recommends fonts-noto-color-emoji fonts-symbola openclipart-svg tango-icon-theme \
  bootstrap-icons fonts-dejavu-core fonts-dejavu-extra fonts-roboto-unhinted fonts-open-sans fonts-liberation fonts-lato fonts-crosextra-caladea \
  librsvg2-bin wamerican xplanet-images mate-backgrounds
mkdir -p "$out/wheels"
"$python" -m pip install -q numpy pillow safetensors tokenizers torch
"$python" -m pip download -q --no-deps -d "$out/wheels" justmyresource-phosphor==2.0.8.post1 justmyresource-mdi==7.4.47.post1 \
  justmyresource-material-icons==4.0.0.post1 fontawesomefree==6.6.0 scikit-image==0.26.0 \
  justmyresource-lucide==0.575.0 justmyresource-heroicons==2.2.0.post1 pytablericons==1.0.1 tkinter-icons-remix==1.1.1 \
  tkinter-icons-ion==1.1.1 tkinter-icons-fluent==1.1.1 tkinter-icons-eva==1.1.1 flet-iconoir==0.3.0 manimgx-fonts==2026.9.26.post1 \
  arcade==3.3.3
"$python" -m pip download -q --no-deps --no-binary :all: -d "$out/wheels" ionicons-python==1.0.3
mkdir -p "$out/unpacked" && tar xf "$out"/wheels/ionicons_python-*.tar.gz -C "$out/wheels"
mv "$out"/wheels/ionicons_python-1.0.3/ionicons_python "$out/unpacked/"
for wheel in "$out"/wheels/*.whl; do
  name=$(basename "${wheel%%-*}")
  "$python" -m zipfile -e "$wheel" "$out/unpacked/$name"
done
"$python" "$here/drawings.py" --icons "$out/unpacked" --out "$out/drawings"
"$python" "$here/extra_drawings.py" --icons "$out/unpacked" --base "$out/drawings" --out "$out/extra"
photos=$out/unpacked/scikit_image/skimage/data
held=/usr/share/backgrounds/mate
"$python" "$here/build_atlas.py" --drawings "$out/drawings" --extra "$out/extra" --out "$out/atlas" \
  --photos "$photos"/{astronaut.png,hubble_deep_field.jpg,grass.png,brick.png,gravel.png,camera.png,retina.jpg} \
    /usr/share/xplanet/images/{earth.jpg,night.jpg} \
  --held-photos "$held"/nature/{Aqua,Dune,Garden,GreenMeadow,RainDrops,Storm,Wood,Blinds}.jpg "$held"/abstract/Silk.png
grep -xE '[a-z]{2,8}' /usr/share/dict/words | tr a-z A-Z | LC_ALL=C sort -u > "$out/atlas/words.txt"
