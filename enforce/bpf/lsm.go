//go:build linux

package bpf

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/exeq/exeq"
)

const (
	lsmNeeds  = "root, Linux 5.17 with CONFIG_BPF_LSM, bpf among the LSMs (lsm= at boot)" // 5.17: bpf_loop
	pathNeeds = lsmNeeds + ", CONFIG_SECURITY_PATH"
	netNeeds  = lsmNeeds + ", CONFIG_SECURITY_NETWORK"
	newNeeds  = "root, Linux 6.1 with CONFIG_BPF_LSM, bpf among the LSMs (lsm= at boot)"
)

var lsmHooks = []hook{
	{lsmProgCheckExec, "LSM hook bprm_check_security", lsmNeeds, false},
	{lsmProgCheckMap, "LSM hook mmap_file", lsmNeeds, false},
	{lsmProgCheckProtect, "LSM hook file_mprotect", lsmNeeds, false},
	{lsmProgCheckOpen, "LSM hook file_open", lsmNeeds, false},
	{lsmProgCheckReceive, "LSM hook file_receive", lsmNeeds, false},
	{lsmProgCheckTruncate, "LSM hook path_truncate", pathNeeds, false},
	{lsmProgCheckChmod, "LSM hook path_chmod", pathNeeds, false},
	{lsmProgCheckChown, "LSM hook path_chown", pathNeeds, false},
	{lsmProgCheckMknod, "LSM hook path_mknod", pathNeeds, false},
	{lsmProgCheckMkdir, "LSM hook path_mkdir", pathNeeds, false},
	{lsmProgCheckSymlink, "LSM hook path_symlink", pathNeeds, false},
	{lsmProgCheckUnlink, "LSM hook path_unlink", pathNeeds, false},
	{lsmProgCheckRmdir, "LSM hook path_rmdir", pathNeeds, false},
	{lsmProgCheckRename, "LSM hook path_rename", pathNeeds, false},
	{lsmProgCheckLink, "LSM hook path_link", pathNeeds, false},
	{lsmProgCheckChroot, "LSM hook path_chroot", pathNeeds, false},
	{lsmProgCheckSocket, "LSM hook socket_create", netNeeds, false},
	{lsmProgCheckListen, "LSM hook socket_listen", netNeeds, false},
	{lsmProgCheckUnix, "LSM hook unix_stream_connect", netNeeds, false},
	{lsmProgCheckUnixSend, "LSM hook unix_may_send", netNeeds, false},
	{lsmProgCheckTrace, "LSM hook ptrace_access_check", lsmNeeds, false},
	{lsmProgCheckKill, "LSM hook task_kill", lsmNeeds, false},
	{lsmProgCheckScheduler, "LSM hook task_setscheduler", lsmNeeds, false},
	{lsmProgCheckNice, "LSM hook task_setnice", lsmNeeds, false},
	{lsmProgCheckFcntl, "LSM hook file_fcntl", lsmNeeds, false},
	{lsmProgCheckIoctl, "LSM hook file_ioctl", lsmNeeds, false},
	{lsmProgCheckIoctl32, "LSM hook file_ioctl_compat", lsmNeeds + ", Linux 6.8", true},
	{lsmProgCheckMount, "LSM hook sb_mount", lsmNeeds, false},
	{lsmProgCheckUmount, "LSM hook sb_umount", lsmNeeds, false},
	{lsmProgCheckPivot, "LSM hook sb_pivotroot", lsmNeeds, false},
	{lsmProgCheckMoveMount, "LSM hook move_mount", lsmNeeds, false},
	{lsmProgCheckUserns, "LSM hook userns_create", newNeeds, false},
	{lsmProgCheckBpf, "LSM hook bpf", lsmNeeds, false},
	{lsmProgCheckPerf, "LSM hook perf_event_open", lsmNeeds, false},
	{lsmProgCheckUringCreds, "LSM hook uring_override_creds", newNeeds, false},
	{lsmProgCheckUringThread, "LSM hook uring_sqpoll", newNeeds, false},
	{lsmProgCheckUringCmd, "LSM hook uring_cmd", newNeeds, false},
	{lsmProgCheckCapable, "LSM hook capable", lsmNeeds, false},
}

// ownMaps are those that only the LSM programs read.
var ownMaps = []string{lsmMapPlaces, lsmMapNames}

// LoadKernel is Load with the LSM programs of the tier kernel beside those of
// kernel-lite: what they hold is refused before it happens, with EPERM, on top
// of what Load holds. A *FeatureError says that the kernel takes no LSM
// programs.
func LoadKernel(dir, top string) (*Gate, error) {
	g, err := load(filepath.Clean(dir), top, true)
	if err != nil {
		return nil, fmt.Errorf("%w: load the gate of tier kernel: %w", exeq.ErrEnforce, err)
	}
	return g, nil
}

// TryKernel says why this kernel takes no LSM programs, or nil: it loads one that
// does nothing. LoadKernel may still fail, for what an older kernel lacks.
func TryKernel() error {
	spec, err := loadLsm()
	if err != nil {
		return err
	}
	return absent(spec, lsmHooks[0])
}

// Kernel says whether the LSM programs are part of the gate.
func (g *Gate) Kernel() bool { return g.kernel }

// Build is the SHA-256 of the programs: which build of the gate it is.
func (g *Gate) Build() [sha256.Size]byte { return build(g.kernel) }

// loadLSM loads the LSM programs onto the maps of the gate and attaches them.
func (g *Gate) loadLSM() error {
	spec, err := lsmSpec()
	if err != nil {
		return err
	}
	for _, h := range lsmHooks {
		if h.optional {
			if err := absent(spec, h); err != nil {
				g.lacks(h, err)
				delete(spec.Programs, h.name)
			}
		}
	}
	c, all := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: g.maps})
	if all != nil {
		for _, h := range lsmHooks {
			if spec.Programs[h.name] == nil {
				continue
			}
			if err := absent(spec, h); err != nil {
				return err
			}
		}
		return all
	}
	defer c.Close()
	for _, name := range ownMaps {
		g.maps[name] = c.DetachMap(name)
	}
	for _, h := range lsmHooks {
		p := c.Programs[h.name]
		if p == nil {
			continue
		}
		l, err := link.AttachLSM(link.LSMOptions{Program: p})
		if err != nil {
			return &FeatureError{h.feature + " attached", h.needs, err}
		}
		g.links[h.name] = l
	}
	return nil
}

func lsmSpec() (*ebpf.CollectionSpec, error) {
	spec, err := loadLsm()
	if err == nil {
		delete(spec.Maps, ".bss")
	}
	return spec, err
}

// spec is the object that the hook's program is in.
func (h hook) spec() (*ebpf.CollectionSpec, error) {
	spec, err := gateSpec()
	if err == nil && spec.Programs[h.name] == nil {
		return lsmSpec()
	}
	return spec, err
}

// hooks are those of the gate's tier.
func (g *Gate) hooks() []hook {
	if g.kernel {
		return append(hooks[:len(hooks):len(hooks)], lsmHooks...)
	}
	return hooks
}

// build is what the map of that name says of a gate of this build.
func build(kernel bool) [sha256.Size]byte {
	if kernel {
		return sha256.Sum256(append(_GateBytes[:len(_GateBytes):len(_GateBytes)], _LsmBytes...))
	}
	return sha256.Sum256(_GateBytes)
}
