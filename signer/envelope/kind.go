package envelope

// The payload types of PROTOCOL section 4.
const (
	TypeManifest          = "application/vnd.kernelgate.upgrade-manifest.v1+json"
	TypeApproval          = "application/vnd.kernelgate.approval.v1+json"
	TypeRejection         = "application/vnd.kernelgate.rejection.v1+json"
	TypeTestRequest       = "application/vnd.kernelgate.test-request.v1+json"
	TypeEmergencyTrigger  = "application/vnd.kernelgate.emergency-trigger.v1+json"
	TypeRegistryStatement = "application/vnd.kernelgate.registry-statement.v1+json"
	TypeKeySuspension     = "application/vnd.kernelgate.key-suspension.v1+json"
	TypeEventKey          = "application/vnd.kernelgate.event-key.v1+json"
	TypeAuditEvent        = "application/vnd.kernelgate.audit-event.v1+json"
	// TypeInToto is the type of test results, AppliedUpgradeRecords and
	// Ratifications, which are in-toto Statements.
	TypeInToto = "application/vnd.in-toto+json"
)
