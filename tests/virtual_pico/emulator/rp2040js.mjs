// The npm package rp2040js, which is installed outside of the sources: .cache/emulator of the
// project.

import { createRequire } from 'node:module';

const require = createRequire(new URL('../../../.cache/emulator/package.json', import.meta.url));

export const { BasePeripheral, ConsoleLogger, LogLevel, RP2040, USBCDC } = require('rp2040js');
