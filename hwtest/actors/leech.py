"""Downloads a torrent with libtorrent from peers alone, found by local discovery.

Arguments: a JSON object with torrent, dir, addr and seconds. Ends with 0 when
the content is whole.
"""

import json
import sys
import time

import libtorrent as lt

arg = json.loads(sys.argv[1])
session = lt.session({
    "listen_interfaces": arg["addr"] + ":6881",
    "enable_dht": False, "enable_lsd": True, "enable_upnp": False, "enable_natpmp": False,
    "alert_mask": 0,
})
info = lt.torrent_info(arg["torrent"])
info.set_web_seeds([])
params = lt.add_torrent_params()
params.ti = info
params.save_path = arg["dir"]
torrent = session.add_torrent(params)
end = time.monotonic() + arg["seconds"]
while not torrent.status().is_seeding:
    if time.monotonic() > end:
        s = torrent.status()
        sys.exit("%.0f %% after %d s, %d peers" % (100 * s.progress, arg["seconds"], s.num_peers))
    time.sleep(0.1)
