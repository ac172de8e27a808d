"""Run the measurements that need nothing but the package: python -m benchmarks."""

from __future__ import annotations

from benchmarks import attention, cka, extraction, memory, precision

for module in (extraction, cka, attention, memory, precision):
    print(f"\n## {module.__name__}\n", flush=True)
    module.main()
