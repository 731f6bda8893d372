-- stiff.lua -- solutions of stiff problems to 1e-13 and better, by scripts/reference_stiff.py: Radau IIA of order 9 in
-- 30 digits. Van der Pol: y'' = 1000 (1 - y^2) y' - y from (2, 0); Robertson: rates 0.04, 3e7, 1e4 from (1, 0, 0).
return {
  { problem = "van_der_pol", t = 2000, z = { 1.706167732170465, -8.928097010248168e-4 } },
  { problem = "robertson", t = 40, z = { 0.7158270687194051, 9.185534764557764e-6, 0.2841637457458304 } },
  { problem = "robertson", t = 1e5, z = { 0.01786592114209946, 7.274751468436319e-8, 0.9821340061103859 } },
}
