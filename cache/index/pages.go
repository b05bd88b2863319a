package index

// Badger reads its tables through mappings. The pages that it has touched count
// as the process's own until the kernel is short of memory: with the records of a
// hundred thousand objects that is more than all else a box needs. So they are
// given up when there are many: what is read again comes from the kernel's page
// cache, in about a microsecond for sixteen pages.

// pageSlack is how many bytes of files may become resident before tables are
// given up.
func (p profile) pageSlack() int64 { return p.memTable }

// trimPages gives up the pages of tables if many have become resident. Only the
// committer calls it.
func (x *Index) trimPages() {
	now, err := residentFiles()
	if err != nil || now < x.resident+profileOf(x.cfg.Small).pageSlack() {
		return
	}
	x.mu.Lock()
	dropped := x.merging == 0 && x.dropPages()
	x.mu.Unlock()
	if now, err = residentFiles(); dropped && err == nil {
		x.resident = now
	}
}

// dropPages gives up the pages of all tables, unless somebody reads them; x.mu is
// held and no merge removes tables. Both matter for more than speed: a table that
// is unmapped between the look at what is mapped and the advice to the kernel
// would leave its addresses to anything, and the advice would wipe that out. Only
// readers and merges let go of a table; Badger's flush of a full table in memory
// adds one, which is harmless.
func (x *Index) dropPages() bool {
	if x.readers.Load() > 0 || x.shut != nil || x.engine == nil {
		return false
	}
	if err := dropMapped(x.engine.dir); err != nil {
		x.log.Warn("failed to give up the pages of tables", "err", err)
	}
	return true
}
