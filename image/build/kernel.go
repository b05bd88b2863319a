package build

import (
	"bytes"
	"debug/elf"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/cistern-edge/cistern/image"
)

// roots are the modules of an image; what they need comes along. Whatever finds
// disks and networks in PCs, servers, Raspberry Pis and virtual machines, and what
// the box does with packets.
var roots = strings.Fields(`
ext4 vfat nls_ascii nls_cp437 nls_iso8859_1 exfat efivarfs crc32c_generic crc32c_intel
virtio_pci virtio_mmio virtio_blk virtio_net virtio_scsi virtio_rng virtio_console virtio_balloon
nvme sd_mod ahci ata_piix ata_generic libahci_platform megaraid_sas mpt3sas hpsa vmw_pvscsi hv_storvsc xen_blkfront mptspi mptsas
usb_storage uas xhci_pci ehci_pci uhci_hcd ohci_pci sdhci_pci sdhci_acpi mmc_block
e1000 e1000e igb igc ixgbe i40e ice r8169 8139cp 8139too tg3 bnx2 bnxt_en atlantic alx atl1c sky2 skge forcedeth vmxnet3 pcnet32
mlx4_en mlx5_core ena gve hv_netvsc hv_vmbus xen_netfront realtek broadcom marvell
r8152 ax88179_178a asix cdc_ether cdc_ncm smsc95xx lan78xx
usbhid hid_generic atkbd i8042
8021q bridge br_netfilter bonding dummy
nf_tables nft_tproxy nft_socket nft_ct nft_nat nft_masq nft_redir nft_chain_nat nft_numgen nft_limit nft_log nft_reject_inet nf_conntrack nf_conntrack_netlink nft_meta_bridge nft_fib_inet tcp_bbr sch_fq
i6300esb iTCO_wdt sp5100_tco wdat_wdt sbsa_gwdt softdog
intel_rng amd_rng tpm_rng
sdhci_iproc sdhci_brcmstb bcm2835_wdt bcm2711_thermal iproc_rng200 reset_raspberrypi raspberrypi_cpufreq
genet bcm7xxx mdio_bcm_unimac macb rp1_pci clk_rp1 pinctrl_rp1 irq_bcm2712_mip
`)

// kernel is what an image takes of the kernel's package.
type kernel struct {
	version string
	image   []byte
	modules map[string][]byte // by path from the root: signed, and not compressed, since the whole is
	index   image.Modules
}

// pickKernel chooses the modules and makes their index from what is written in
// each of them (.modinfo), since packages carry none.
func pickKernel(files map[string][]byte) (kernel, error) {
	k := kernel{modules: map[string][]byte{}, index: image.Modules{Files: map[string]string{}, Needs: map[string][]string{}}}
	byName := map[string]string{}
	for name, body := range files {
		switch {
		case strings.HasPrefix(name, "boot/vmlinuz-"):
			k.version, k.image = strings.TrimPrefix(name, "boot/vmlinuz-"), body
		case strings.Contains(name, ".ko"):
			byName[image.ModuleName(name)] = name
		}
	}
	if k.image == nil {
		return k, fmt.Errorf("the kernel's package has no kernel")
	}
	var take func(name string) error
	take = func(name string) error {
		file, ok := byName[name]
		if _, done := k.index.Files[name]; done || !ok {
			return nil // built in, or not in this kernel
		}
		body, err := plain(files[file])
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		info, err := modinfo(body)
		if err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
		file = strings.TrimSuffix(file, ".xz")
		k.modules[file] = body
		k.index.Files[name] = "/" + file
		for _, alias := range info["alias"] {
			k.index.Aliases = append(k.index.Aliases, image.Alias{Pattern: alias, Module: name})
		}
		needs := strings.FieldsFunc(strings.Join(info["depends"], ","), func(r rune) bool { return r == ',' })
		for _, soft := range info["softdep"] {
			needs = append(needs, beforehand(soft)...)
		}
		for _, need := range needs {
			need = strings.ReplaceAll(need, "-", "_")
			k.index.Needs[name] = append(k.index.Needs[name], need)
			if err := take(need); err != nil {
				return err
			}
		}
		return nil
	}
	for _, name := range roots {
		if err := take(name); err != nil {
			return k, err
		}
	}
	slices.SortStableFunc(k.index.Aliases, func(a, b image.Alias) int {
		return strings.Compare(a.Pattern+" "+a.Module, b.Pattern+" "+b.Module)
	})
	return k, nil
}

// beforehand are the modules that a line "pre: a b post: c" wants first.
func beforehand(soft string) (names []string) {
	pre := false
	for _, word := range strings.Fields(soft) {
		if strings.HasSuffix(word, ":") {
			pre = word == "pre:"
		} else if pre {
			names = append(names, word)
		}
	}
	return names
}

// plain decompresses a module: the initial file system is compressed as a whole,
// which takes less room, and a slow machine starts sooner.
func plain(module []byte) ([]byte, error) {
	if !bytes.HasPrefix(module, []byte("\xfd7zXZ\x00")) {
		return module, nil
	}
	r, err := xz.NewReader(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_, err = out.ReadFrom(r)
	return out.Bytes(), err
}

// modinfo reads the section of that name: key=value, each ended by a zero.
func modinfo(module []byte) (map[string][]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	info := map[string][]string{}
	for entry := range strings.SplitSeq(string(data), "\x00") {
		if key, value, ok := strings.Cut(entry, "="); ok {
			info[key] = append(info[key], value)
		}
	}
	return info, nil
}

// certificates joins the authorities of the package ca-certificates into the
// one file that Go looks for.
func certificates(files map[string][]byte) []byte {
	var all []byte
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if path.Ext(name) == ".crt" {
			all = append(append(all, bytes.TrimSpace(files[name])...), '\n')
		}
	}
	return all
}
