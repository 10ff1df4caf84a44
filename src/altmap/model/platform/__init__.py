"""The platform: firmware and hypervisors, which back page frames."""
