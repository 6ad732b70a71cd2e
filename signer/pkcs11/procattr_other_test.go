//go:build !linux

package pkcs11_test

import "syscall"

func endWithParent() *syscall.SysProcAttr { return nil }
