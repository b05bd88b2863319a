package build

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var epoch = time.Unix(1_760_000_000, 0)

// TestFAT has dosfstools and mtools read what was written.
func TestFAT(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	files := map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": big, "EFI/DEBIAN/GRUBENV": make([]byte, 1024), "empty": nil,
		"cistern.toml": []byte("version = 1\n"), "cistern.toml.example": []byte("x"), "thirteen.char": []byte("y"), "Read me, please.txt": []byte("hello"),
	}
	for i := range 40 { // more than one cluster of the root has room for
		files[fmt.Sprintf("a file of the root, number %d", i)] = []byte{byte(i)}
	}
	raw, err := fat(40<<20, "CONFIG", epoch, files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fat(40<<20, "CONFIG", epoch, files)
	if err != nil || !bytes.Equal(raw, again) {
		t.Fatal("two volumes of the same files differ", err)
	}
	volume := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(volume, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(volume, 40<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "fsck.fat")
	if out, err := exec.Command("fsck.fat", "-n", volume).CombinedOutput(); err != nil {
		t.Errorf("fsck.fat: %v\n%s", err, out)
	}
	tool(t, "mtype")
	for name, body := range files {
		got, err := exec.Command("mtype", "-i", volume, "::"+name).Output()
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := fat(40<<20, "SMALL", epoch, map[string][]byte{"x": make([]byte, 41<<20)}); err == nil {
		t.Error("41 MiB fit into 40")
	}
}

// tool skips a test whose foreign program is not here, which with CI=true is a
// failure.
func tool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed (hwtest/setup.sh)", name)
	}
	t.Skipf("%s is not installed (hwtest/setup.sh)", name)
}
