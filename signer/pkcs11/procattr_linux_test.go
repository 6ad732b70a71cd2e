package pkcs11_test

import "syscall"

// endWithParent: a test that crashes leaves no servers behind.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
