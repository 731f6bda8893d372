-- stiff.lua -- solutions of stiff problems to 1e-12 and better, by scripts/reference_stiff.py: Radau IIA of order 9 in
-- 30 digits. Van der Pol: y'' = 1000 (1 - y^2) y' - y from (2, 0); Robertson: rates 0.04, 3e7, 1e4 from (1, 0, 0).
return {
  { problem = "van_der_pol", t = 2000, z = { 1.706167732170, -8.928097010248e-4 } },
  { problem = "robertson", t = 40, z = { 0.71582706872, 9.18553476456e-6, 0.28416374574 } },
  { problem = "robertson", t = 1e5, z = { 0.017865921142, 7.2747514685e-8, 0.98213400611 } },
}
