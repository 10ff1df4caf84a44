"""The platform: firmware and hypervisors, which know what backs each page frame."""
